"""What a request for a response means, and how its items become turns and items again."""

from typing import Any

import pytest

from api_shim.http.problems import Refusal
from api_shim.openai.response_head import ResponseHead
from api_shim.openai.responses.items import EarlierResponses, input_items, job_of, merge_messages
from api_shim.openai.responses.request import ResponseBody, to_request
from api_shim.openai.responses.response import ResponseFacts
from contract.chat import (
    ChatRequest,
    ImagePart,
    JsonFormat,
    Message,
    NamedTool,
    SchemaFormat,
    TextPart,
    Tool,
    ToolCall,
)

JOB, OTHER = "0" * 32, "1" * 32
IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo="}
LOOK = {"type": "function", "name": "look", "parameters": {"type": "object", "default": None}}


def text(type: str, text: str) -> dict[str, str]:
    return {"type": type, "text": text}


def says(part: dict[str, str]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [part]}]


def ask(known: EarlierResponses | None = None, **fields: Any) -> ChatRequest:
    body = ResponseBody.model_validate({"model": "m", "input": "hi", **fields})
    return to_request(body, known or EarlierResponses())


def refused(**fields: Any) -> str:
    with pytest.raises(Refusal) as caught:
        ask(**fields)
    field: str = caught.value.extra["errors"][0].field
    return field


def response(request: ChatRequest) -> dict[str, Any]:
    about = ResponseFacts(ResponseHead(JOB, 1767225600, "m", "standard"), request)
    return about.response("queued", about.output)


def test_a_string_is_a_message_of_the_user() -> None:
    request = ask(instructions="be kind")

    assert request.messages == (
        Message(role="system", content="be kind"),
        Message(role="user", content="hi"),
    )


def test_items_of_the_assistant_that_follow_each_other_are_one_turn() -> None:
    call = {"type": "function_call", "arguments": '{"a":1}'}
    items = [
        {"role": "developer", "content": "be kind"},
        {"role": "user", "content": [text("input_text", "look"), IMAGE]},
        {"type": "reasoning", "id": "rs_1", "content": [text("reasoning_text", "hm")]},
        {"type": "message", "role": "assistant", "content": [text("output_text", "so")]},
        {**call, "call_id": "c1", "name": "f", "extra_content": {"signature": "s"}},
        {**call, "call_id": "c2", "name": "g"},
        {"type": "function_call_output", "call_id": "c1", "output": "42"},
        {"type": "function_call_output", "call_id": "c2", "output": [text("input_text", "43")]},
    ]
    calls = (
        ToolCall(id="c1", name="f", arguments='{"a":1}', provider_meta={"signature": "s"}),
        ToolCall(id="c2", name="g", arguments='{"a":1}'),
    )

    assert ask(input=items).messages == (
        Message(role="system", content="be kind"),
        Message(
            role="user",
            content=(TextPart(text="look"), ImagePart(image="data:image/png;base64,iVBORw0KGgo=")),
        ),
        Message(role="assistant", content="so", thinking="hm", tool_calls=calls),
        Message(role="tool", content="42", tool_call_id="c1", tool_name="f"),
        Message(role="tool", content="43", tool_call_id="c2", tool_name="g"),
    )


def test_calls_come_right_before_their_results_whatever_messages_were_between() -> None:
    call = Message(role="assistant", tool_calls=(ToolCall(id="c", name="f"),))
    words = Message(role="assistant", content="well")
    result = Message(role="tool", content="1", tool_call_id="c", tool_name="f")

    turns = merge_messages([words, words, call, words, result])

    assert [turn.text for turn in turns] == ["well", "wellwell", "1"]
    assert turns[1].tool_calls == call.tool_calls


def test_options_keep_their_meaning() -> None:
    request = ask(
        max_output_tokens=7, temperature=0.5, top_p=0.9, parallel_tool_calls=False, backend="box",
        truncation="auto", service_tier="priority", reasoning={"effort": "max"}, top_logprobs=2,
        include=["message.output_text.logprobs"], metadata={"a": "b"}, user="ann",
        tools=[LOOK], tool_choice={"type": "function", "name": "look"},
    )  # fmt: skip

    assert (request.max_tokens, request.temperature, request.top_p) == (7, 0.5, 0.9)
    assert (request.parallel_tool_calls, request.backend, request.truncate) == (False, "box", True)
    assert (request.priority, request.think) == ("interactive", "xhigh")
    assert (request.logprobs, request.top_logprobs) == (True, 2)
    assert request.metadata == {"a": "b", "user": "ann"}
    assert request.tools == (Tool(name="look", parameters={"type": "object", "default": None}),)
    assert request.tool_choice == NamedTool(name="look")


def test_some_tools_may_be_allowed() -> None:
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"name": "look"}]}
    request = ask(tools=[LOOK, {**LOOK, "name": "leap"}], tool_choice=allowed)

    assert [tool.name for tool in request.tools] == ["look"]
    assert request.tool_choice == "required"


def test_formats_become_the_contract_s() -> None:
    schema = {"type": "json_schema", "name": "p", "schema": {"type": "object"}, "strict": True}

    assert ask(text={"format": {"type": "json_object"}}).response_format == JsonFormat()
    assert ask(text={"format": schema}).response_format == SchemaFormat(
        schema_={"type": "object"}, name="p", strict=True
    )


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("input", {"input": None}),
        ("input", {"input": []}),
        ("input", {"input": [{"type": "quantum"}]}),
        ("conversation", {"conversation": "conv_1"}),
        ("prompt", {"prompt": {"id": "pmpt_1"}}),
        ("store", {"background": True, "store": False}),
        ("tool_choice", {"tool_choice": {"type": "web_search"}}),
        ("tools.1.name", {"tools": [LOOK, {"type": "function"}]}),
        ("tool_choice", {"tool_choice": {"type": "function", "name": "absent"}}),
        ("text.format.type", {"text": {"format": {"type": "grammar"}}}),
        ("text.format.schema", {"text": {"format": {"type": "json_schema"}}}),
        ("reasoning.effort", {"reasoning": {"effort": "immense"}}),
        ("temperature", {"temperature": 99}),
        ("input", {"input": [{"type": "computer_call"}]}),
        ("input.0.role", {"input": [{"content": "hi"}]}),
        ("input.0", {"input": [{"type": "function_call", "name": "f"}]}),
        ("input.0.call_id", {"input": [{"type": "function_call_output", "output": "1"}]}),
        ("input.0.id", {"input": [{"type": "item_reference", "id": f"msg_{OTHER}_0"}]}),
        ("input.0.content.0.type", {"input": says({"type": "input_file"})}),
        ("input.0.content.0", {"input": says({"type": "input_image", "file_id": "f"})}),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(field: str, fields: dict[str, Any]) -> None:
    assert refused(**fields) == field


@pytest.mark.parametrize("id", ["resp_", "resp_x", "chatcmpl-1", f"msg_{JOB}", f"resp_{JOB}0"])
def test_an_id_that_can_be_no_response_s_is_not_found(id: str) -> None:
    with pytest.raises(Refusal) as caught:
        _ = ResponseBody(model="m", previous_response_id=id).previous_job

    assert (caught.value.code, caught.value.status_code) == ("previous_response_not_found", 400)


def test_a_response_repeats_what_was_asked() -> None:
    schema = {"type": "json_schema", "name": "p", "schema": {"type": "object"}}
    request = ask(
        instructions="be kind", tools=[LOOK], text={"format": schema}, metadata={"a": "b"},
        reasoning={"effort": "low"}, temperature=0.5, background=True, user="ann",
    )  # fmt: skip
    told = response(request)

    assert told["instructions"] == "be kind"
    assert told["tools"] == [{**LOOK, "description": None, "strict": None}]
    assert told["text"] == {"format": schema, "verbosity": "medium"}
    assert told["reasoning"] == {"effort": "low", "summary": None}
    assert (told["metadata"], told["user"]) == ({"a": "b"}, "ann")
    assert (told["temperature"], told["top_p"], told["background"]) == (0.5, None, True)
    assert (told["status"], told["previous_response_id"]) == ("queued", None)


def test_the_background_outlives_its_caller_and_the_usual_deadline() -> None:
    # litellm #36275: a disconnect must not cancel what runs in the background.
    request = ask(background=True)

    assert "on_disconnect" in request.model_fields_set
    assert request.on_disconnect == "continue"
    assert request.effective_deadline_s == 86400
    assert "on_disconnect" not in ask().model_fields_set


def test_a_response_continues_the_conversation_without_its_instructions() -> None:
    past = (Message(role="user", content="a"), Message(role="assistant", content="b"))
    request = ask(EarlierResponses(past, (OTHER,)), instructions="be brief", input="c")

    assert [message.text for message in request.messages] == ["be brief", "a", "b", "c"]
    assert response(request)["previous_response_id"] == f"resp_{OTHER}"


def test_an_item_may_be_referenced_and_one_of_the_chain_is_not_repeated() -> None:
    # vercel/ai #15492: its converter names items that stand in the chain already.
    words = Message(role="assistant", content="b")
    named = [{"type": "item_reference", "id": f"msg_{OTHER}_0"}, {"role": "user", "content": "c"}]
    with_item = ask(EarlierResponses(item_messages={f"msg_{OTHER}_0": words}), input=named)
    in_chain = ask(EarlierResponses((words,), (OTHER,)), input=named)

    assert [message.text for message in with_item.messages] == ["b", "c"]
    assert with_item.messages == in_chain.messages


def test_input_items_mean_the_same_as_the_request() -> None:
    call = ToolCall(id="c", name="f", arguments="{}", provider_meta={"signature": "s"})
    messages = (
        Message(role="user", content=(TextPart(text="a"), ImagePart(image="http://x/y.png"))),
        Message(role="assistant", content="b", thinking="hm", tool_calls=(call,)),
        Message(role="tool", content="1", tool_call_id="c", tool_name="f"),
    )
    told = [item for _, item in input_items(JOB, messages)]

    assert [item["type"] for item in told] == [
        "message", "reasoning", "message", "function_call", "function_call_output",
    ]  # fmt: skip
    assert ask(input=told).messages == messages
    assert (
        merge_messages(item_message.message for item_message, _ in input_items(JOB, messages))
        == messages
    )
    assert {job_of(item["id"]) for item in told} == {JOB}
    assert len({item["id"] for item in told}) == 5
