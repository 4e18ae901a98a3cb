"""A request of the contract is translated for each server.

Subjects: workers/backends/openai/requests.py, workers/backends/ollama/wire.py.
"""

from typing import Any

import pytest
from pydantic_core import from_json

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
from contract.embeddings import EmbedRequest
from contract.errors import (
    InvalidRequest,
    NotSupported,
)
from workers.backends.ollama import wire
from workers.backends.openai import requests
from workers.backends.openai.dialects import DIALECTS
from workers.backends.tools import arguments_text

PNG = "iVBORw0KGgoAAAA="
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


def chat(*messages: Message, **fields: Any) -> ChatRequest:
    given = messages or (Message(role="user", content="hi"),)
    return ChatRequest(model="m", messages=given, **fields)


def to(type: str, request: ChatRequest) -> tuple[dict[str, Any], tuple[str, ...]]:
    if type == "ollama":
        return wire.to_chat(request), ()
    return requests.to_chat(request, DIALECTS[type])


def test_unset_fields_are_not_sent() -> None:
    plain = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}

    assert plain | {"options": {}} == to("ollama", chat())[0]
    assert plain | {"stream_options": {"include_usage": True}} == to("generic", chat())[0]


def test_every_option_has_its_name_at_ollama() -> None:
    request = chat(
        max_tokens=5, temperature=0.5, top_p=0.9, top_k=7, min_p=0.1, seed=3, stop=("x",),
        truncate=False, shift=True, keep_alive_s=-1,
    )  # fmt: skip
    body, _ = to("ollama", request)

    assert body["options"] == {
        "num_predict": 5,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 7,
        "min_p": 0.1,
        "seed": 3,
        "stop": ["x"],
    }
    assert (body["truncate"], body["shift"], body["keep_alive"]) == (False, True, -1)


@pytest.mark.parametrize(
    ("type", "ignored"),
    [
        ("llamacpp", {"shift", "truncate", "keep_alive_s"}),
        ("lmstudio", {"min_p", "think", "shift", "truncate"}),
        ("vllm", {"shift", "keep_alive_s"}),
        ("openai", {"top_k", "min_p", "shift", "truncate", "keep_alive_s"}),
        ("generic", {"top_k", "min_p", "think", "shift", "truncate", "keep_alive_s"}),
    ],
)
def test_what_a_server_cannot_express_is_named(type: str, ignored: set[str]) -> None:
    request = chat(top_k=7, min_p=0.1, think="high", truncate=True, shift=True, keep_alive_s=60)

    assert ignored == set(to(type, request)[1])


@pytest.mark.parametrize("type", ["vllm", "openai"])
def test_not_cutting_is_what_servers_do_that_never_cut(type: str) -> None:
    body, ignored = to(type, chat(truncate=False, shift=False))

    assert ignored == ()
    assert "truncate_prompt_tokens" not in body


@pytest.mark.parametrize(
    ("type", "field"),
    [
        ("llamacpp", "max_tokens"),
        ("lmstudio", "max_tokens"),
        ("generic", "max_tokens"),
        ("vllm", "max_completion_tokens"),
        ("openai", "max_completion_tokens"),
    ],
)
def test_the_length_has_each_servers_name(type: str, field: str) -> None:
    assert to(type, chat(max_tokens=9))[0][field] == 9


@pytest.mark.parametrize(
    ("type", "think", "expected"),
    [
        ("ollama", "off", {"think": False}),
        ("ollama", "minimal", {"think": "low"}),
        ("ollama", "xhigh", {"think": "max"}),
        ("llamacpp", "off", {"chat_template_kwargs": {"enable_thinking": False}}),
        (
            "vllm",
            "high",
            {"chat_template_kwargs": {"enable_thinking": True}, "reasoning_effort": "high"},
        ),
        ("openai", "off", {"reasoning_effort": "none"}),
        ("openai", "xhigh", {"reasoning_effort": "xhigh"}),
    ],
)
def test_thinking_is_sent_in_each_servers_fields(
    type: str, think: Any, expected: dict[str, Any]
) -> None:
    body, ignored = to(type, chat(think=think))

    assert expected == {name: body.get(name) for name in expected}
    assert ignored == ()


def test_a_schema_goes_where_each_server_looks_for_it() -> None:
    request = chat(response_format=SchemaFormat(schema=SCHEMA))
    wrapped = {"name": "answer", "schema": SCHEMA, "strict": True}

    assert to("ollama", request)[0]["format"] == SCHEMA
    for type in DIALECTS:
        sent = to(type, request)[0]["response_format"]
        assert {"type": "json_schema", "json_schema": wrapped} == sent


def test_any_object_is_a_schema_where_json_object_is_unknown() -> None:
    request = chat(response_format=JsonFormat())

    assert to("ollama", request)[0]["format"] == "json"
    assert to("vllm", request)[0]["response_format"] == {"type": "json_object"}
    schema = to("lmstudio", request)[0]["response_format"]["json_schema"]["schema"]
    assert schema == {"type": "object"}


def test_a_named_tool_is_forced_or_refused_and_never_forgotten() -> None:
    request = chat(tools=(Tool(name="a"), Tool(name="b")), tool_choice=NamedTool(name="b"))
    named = {"type": "function", "function": {"name": "b"}}

    assert named == to("vllm", request)[0]["tool_choice"]
    body = to("llamacpp", request)[0]
    assert body["tool_choice"] == "required"
    assert [tool["function"]["name"] for tool in body["tools"]] == ["b"]
    with pytest.raises(NotSupported, match="tool_choice"):
        to("ollama", request)


@pytest.mark.parametrize("type", ["ollama", *DIALECTS])
def test_no_tools_are_sent_when_none_may_be_called(type: str) -> None:
    body = to(type, chat(tools=(Tool(name="a"),), tool_choice="none"))[0]

    assert not {"tools", "tool_choice"} & set(body)


def test_images_are_raw_for_ollama_and_urls_for_the_others() -> None:
    message = Message(role="user", content=(TextPart(text="see"), ImagePart(image=PNG)))
    data_url = Message(role="user", content=(ImagePart(image=f"data:image/png;base64,{PNG}"),))

    assert to("ollama", chat(message))[0]["messages"][0]["images"] == [PNG]
    assert to("ollama", chat(data_url))[0]["messages"][0]["images"] == [PNG]
    part = to("openai", chat(message))[0]["messages"][0]["content"][1]
    assert {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}} == part


@pytest.mark.parametrize("type", ["ollama", "lmstudio"])
def test_an_image_url_is_refused_if_the_server_does_not_fetch_it(type: str) -> None:
    message = Message(role="user", content=(ImagePart(image="https://x/y.png"),))

    with pytest.raises(NotSupported, match=r"messages\[0\]"):
        to(type, chat(message))


def test_tool_turns_go_back_in_each_servers_shape() -> None:
    turns = (
        Message(role="assistant", tool_calls=(ToolCall(id="c1", name="f", arguments='{"x":1}'),)),
        Message(role="tool", content="42", tool_call_id="c1"),
    )
    [call, result] = to("ollama", chat(*turns))[0]["messages"]
    assert call["tool_calls"][0]["function"]["arguments"] == {"x": 1}
    assert result["tool_name"] == "f"

    [call, result] = to("openai", chat(*turns))[0]["messages"]
    assert call["tool_calls"][0]["function"]["arguments"] == '{"x":1}'
    assert result["tool_call_id"] == "c1"


def test_arguments_that_are_no_object_cannot_go_to_ollama() -> None:
    turn = Message(role="assistant", tool_calls=(ToolCall(name="f", arguments="[1"),))

    with pytest.raises(InvalidRequest, match="arguments of 'f'"):
        to("ollama", chat(turn))


@pytest.mark.parametrize("type", ["llamacpp", "vllm"])
def test_the_flags_to_continue_an_assistant_message_are_sent(type: str) -> None:
    body = to(type, chat(Message(role="assistant", content="a")))[0]

    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)


def test_truncate_is_reported_as_ignored_only_if_it_was_set() -> None:
    silent = EmbedRequest(model="m", input=("a",))
    request = EmbedRequest(model="m", input=("a",), truncate=True)

    assert requests.to_embed(silent, DIALECTS["openai"]).ignored == ()
    assert requests.to_embed(request, DIALECTS["openai"]).ignored == ("truncate",)
    assert requests.to_embed(request, DIALECTS["vllm"]).fields["truncate_prompt_tokens"] == -1


@pytest.mark.parametrize("arguments", ['{"a":1}', {"a": 1}, None, ""])
def test_arguments_of_any_type_become_text(arguments: Any) -> None:
    assert isinstance(from_json(arguments_text(arguments)), dict)
