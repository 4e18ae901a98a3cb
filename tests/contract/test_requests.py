"""Requests: strict validation, and unchanged by encoding and decoding."""

import json
from typing import Any, get_args

import pytest
from pydantic import ValidationError
from pydantic_core import to_json

from contract import errors
from contract.chat import ChatRequest, Message, SchemaFormat, Tool
from contract.embeddings import EmbedRequest
from contract.jobs import REQUESTS, any_request
from contract.requests import Kind
from contract.roster import Capability
from contract.wire import decode, encode

HELLO = {"role": "user", "content": "hello"}


def chat(**fields: Any) -> ChatRequest:
    return ChatRequest.model_validate({"model": "m", "messages": [HELLO], **fields})


def test_a_request_survives_the_wire() -> None:
    request = chat(
        tools=[{"name": "f", "parameters": {"type": "object", "default": None}}],
        response_format={"type": "json_schema", "schema": {"const": None}},
        tool_choice={"name": "f"},
        messages=[{"role": "user", "content": [{"type": "image", "image": "iVBORw0KGgo="}]}],
        metadata={"nothing": ""},
    )

    assert request == any_request.validate_json(encode(request))


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1},
        {"max_tokens": 0},
        {"messages": []},
        {"modle": "typo"},
        {"messages": [{"role": "robot", "content": ""}]},
        {"priority": "urgent"},
        {"deadline_s": 0},
        {"backend": "Not A Name"},
        {"think": "a lot"},
        {"metadata": {str(number): "" for number in range(17)}},
        {"metadata": {"k" * 65: "v"}},
        {"metadata": {"k": "v" * 513}},
        {"metadata": {"k": {"nested": "v"}}},
        {"metadata": {"k": 7}},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_wrong_field_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        chat(**wrong)

    assert next(iter(wrong)) == caught.value.errors()[0]["loc"][0]


def test_the_longest_metadata_is_taken() -> None:
    most = {f"{number:064}": "🦜" * 512 for number in range(16)}

    assert chat(metadata=most).metadata == most


def test_metadata_has_one_error_however_much_of_it_is_wrong() -> None:
    with pytest.raises(ValidationError) as caught:
        chat(metadata={f"{number}": {} for number in range(100_000)})

    (error,) = caught.value.errors()
    assert error["loc"] == ("metadata",)
    assert "16 keys of 64 characters, with strings of 512" in error["msg"]


def test_every_kind_has_a_request_and_is_a_capability() -> None:
    assert set(get_args(Kind)) == set(REQUESTS) == set(get_args(Capability))


def test_a_chat_has_a_deadline_unless_it_is_a_batch_job() -> None:
    # arq, pocketpaw #1575: a default of 300 s cuts generations in half. Ours is said.
    assert (
        chat().effective_deadline_s,
        chat(priority="batch").effective_deadline_s,
        chat(deadline_s=5).effective_deadline_s,
    ) == (600, None, 5)


def test_a_message_has_its_text_and_images() -> None:
    message = Message.model_validate(
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "a"},
                {"type": "image", "image": "iVBORw0KGgo="},
                {"type": "text", "text": "b"},
            ],
        }
    )

    assert (message.text, message.images) == ("ab", ("iVBORw0KGgo=",))


def test_requests_are_immutable() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        chat().model = "other"  # type: ignore[misc]


def test_none_inside_a_schema_is_kept() -> None:
    tool = Tool(name="f", parameters={"default": None})
    form = SchemaFormat(schema_={"const": None})

    assert tool == decode(Tool, encode(tool))
    assert form == decode(SchemaFormat, encode(form))


def tree(error: type[errors.FleetError]) -> set[type[errors.FleetError]]:
    return {error}.union(*(tree(child) for child in error.__subclasses__()))


def test_every_error_has_a_code_of_its_own_and_is_drawn_in_the_tree() -> None:
    classes = {error for error in tree(errors.FleetError) if error.__module__ == errors.__name__}

    codes = [vars(error)["code"] for error in classes if "code" in vars(error)]

    assert len(codes) == len(set(codes))
    assert [error for error in classes if error.__name__ not in (errors.__doc__ or "")] == []


def test_a_null_is_as_if_the_field_had_been_left_out() -> None:
    plain = {"kind": "chat", "model": "m", "messages": [{"role": "user", "content": "hi"}]}
    turn = {"role": "user", "content": "hi", "tool_calls": None, "thinking": None}
    nulls = {
        "priority": None, "max_attempts": None, "metadata": None, "stop": None, "think": None,
        "messages": [turn], "tools": None, "tool_choice": None, "response_format": None,
    }  # fmt: skip
    schema = {"type": "object", "properties": {"a": {"default": None}}}
    tools = [{"name": "f", "description": None, "parameters": schema}]

    assert any_request.validate_python({**plain, **nulls}) == any_request.validate_python(plain)
    assert any_request.validate_json(to_json({**plain, **nulls})) == any_request.validate_json(
        to_json(plain)
    )
    [tool] = any_request.validate_python({**plain, "tools": tools}).tools
    assert tool.parameters == schema


def test_a_null_in_place_of_what_is_required_is_missing() -> None:
    with pytest.raises(ValidationError, match="model\n  Field required"):
        any_request.validate_python({"kind": "embed", "model": None, "input": ["a"]})


def test_an_object_with_too_many_fields_is_refused_before_any_is_looked_at() -> None:
    with pytest.raises(ValidationError) as found:
        ChatRequest.model_validate({"messages": [{f"k{n}": 1 for n in range(10_000)}]})

    by_place = {each["loc"]: each["type"] for each in found.value.errors()}
    assert by_place == {("model",): "missing", ("messages", 0): "too_many_fields"}


def test_a_list_has_a_bound_and_ends_at_its_first_invalid_item() -> None:
    with pytest.raises(ValidationError) as found:
        ChatRequest.model_validate(
            {
                "model": "m",
                "messages": [{"role": "user"}] * 10_001,
                "tools": [{"name": ""}] * 500,
                "stop": ["x"] * 17,
            }
        )

    by_place = {each["loc"]: each["type"] for each in found.value.errors()}
    assert by_place == {
        ("messages",): "too_long",
        ("tools", 0, "name"): "string_too_short",
        ("stop",): "too_long",
    }


def test_numbers_have_no_bound_of_their_own() -> None:
    request = EmbedRequest(model="m", tokens=(tuple(range(20_000)),))

    assert request.count == 1


def test_all_items_that_an_older_version_does_not_know_are_left_out() -> None:
    data = {"model": "m", "messages": [{"role": "narrator"}, HELLO, {"role": "choir"}] * 20}

    assert len(decode(ChatRequest, json.dumps(data)).messages) == 20
