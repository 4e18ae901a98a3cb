"""A chat is translated from OpenAI's API to the contract, and back.

Subjects: api_shim/openai/chat_request.py, api_shim/openai/chat_response.py.
"""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api_shim.http.problems import Problem, Refusal
from api_shim.openai.chat_request import ChatBody, to_chat
from api_shim.openai.chat_response import ChatChunks, response_body
from api_shim.openai.response_head import ResponseHead
from contract.chat import (
    ImagePart,
    JsonFormat,
    Message,
    NamedTool,
    SchemaFormat,
    TextPart,
    Tool,
    ToolCall,
)
from contract.events import (
    Delta,
    Done,
    Event,
    EventId,
    Frame,
    LogProb,
    Started,
    ToolCallDelta,
    Usage,
)
from contract.result import fold, unique_call_id

HEADING = ResponseHead("0123456789abcdef0123456789abcdef", 1767225600, "m", "standard")
LOOK = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


def ask(**fields: Any) -> Any:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}
    return to_chat(ChatBody.model_validate(body))


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def saying(part: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [part]}]}


def refused(**fields: Any) -> str:
    with pytest.raises(Refusal) as caught:
        ask(**fields)
    field: str = caught.value.extra["errors"][0].field
    return field


def frames(*events: Event) -> list[Frame]:
    return [Frame.of(EventId(1, at), 1.5, event) for at, event in enumerate(events)]


def told(*events: Event, **options: Any) -> list[Any]:
    """The chunks of a stream, `[DONE]` as it is."""
    chunks = ChatChunks(HEADING, **{"with_usage": False, **options})
    data = b"".join(chunks.render([frame]) for frame in frames(*events))
    assert data.endswith(b"\n\n")
    lines = [event.removeprefix(b"data: ").decode() for event in data[:-2].split(b"\n\n")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def deltas(*events: Event) -> list[dict[str, Any]]:
    return [chunk["choices"][0]["delta"] for chunk in told(*events)[:-1]]


def test_roles_and_parts_become_the_contract_s() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    request = ask(
        messages=[
            {"role": "developer", "content": [text("be "), text("kind")]},
            {"role": "user", "content": [text("look"), image]},
            {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "42"},
        ]
    )  # fmt: skip

    assert request.messages == (
        Message(role="system", content="be kind"),
        Message(
            role="user",
            content=(TextPart(text="look"), ImagePart(image="data:image/png;base64,iVBORw0KGgo=")),
        ),
        Message(
            role="assistant",
            thinking="hm",
            tool_calls=(ToolCall(id="c1", name="f", arguments='{"a":1}'),),
        ),
        Message(role="tool", content="42", tool_call_id="c1"),
    )


def test_deprecated_functions_are_tools() -> None:
    call = {"name": "f", "arguments": "{}"}
    request = ask(
        functions=[{"name": "f"}],
        function_call={"name": "f"},
        messages=[
            {"role": "assistant", "function_call": call},
            {"role": "function", "name": "f", "content": "1"},
        ],
    )

    assert request.tools == (Tool(name="f"),)
    assert request.tool_choice == NamedTool(name="f")
    assert request.messages[0].tool_calls[0].name == "f"
    assert (request.messages[1].role, request.messages[1].tool_name) == ("tool", "f")


def test_options_keep_their_meaning() -> None:
    request = ask(
        max_tokens=5, max_completion_tokens=7, stop="x", seed=1, temperature=0.5, top_p=0.9,
        frequency_penalty=1, presence_penalty=-1, logit_bias={"3": 40}, top_k=3, min_p=0.1,
        logprobs=True, top_logprobs=2, parallel_tool_calls=False, backend="box", user="ann",
    )  # fmt: skip

    assert (request.max_tokens, request.stop, request.seed) == (7, ("x",), 1)
    assert (request.frequency_penalty, request.presence_penalty) == (1, -1)
    assert (request.logit_bias, request.top_k, request.min_p) == ({"3": 40}, 3, 0.1)
    assert (request.logprobs, request.top_logprobs, request.backend) == (True, 2, "box")
    assert request.parallel_tool_calls is False
    assert request.metadata == {"user": "ann"}


@pytest.mark.parametrize(
    ("given", "think"),
    [
        ({}, "auto"),
        ({"reasoning_effort": "none"}, "off"),
        ({"reasoning_effort": "max"}, "xhigh"),
        ({"reasoning": {"effort": "low"}}, "low"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, "off"),
    ],
)
def test_effort_is_set_in_many_ways(given: dict[str, Any], think: str) -> None:
    assert ask(**given).think == think


@pytest.mark.parametrize(
    ("tier", "priority"),
    [("priority", "interactive"), ("flex", "batch"), ("default", "standard"), ("auto", "standard")],
)
def test_tiers_are_classes_of_priority(tier: str, priority: str) -> None:
    request = ask(service_tier=tier)

    assert request.priority == priority
    # What was not said must not beat a default, or a header.
    assert ("priority" in request.model_fields_set) == (tier != "auto")


def test_formats_become_the_contract_s() -> None:
    schema = {"name": "p", "schema": {"type": "object"}}
    with_schema = ask(response_format={"type": "json_schema", "json_schema": schema})

    assert ask(response_format={"type": "json_object"}).response_format == JsonFormat()
    assert with_schema.response_format == SchemaFormat(
        name="p", schema={"type": "object"}, strict=False
    )


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("required", "required"),
        ({"type": "function", "function": {"name": "look"}}, NamedTool(name="look")),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [LOOK]}},
            "required",
        ),
    ],
)
def test_choices_of_tools_become_the_contract_s(choice: Any, expected: Any) -> None:
    request = ask(tools=[LOOK], tool_choice=choice)

    assert (request.tool_choice, len(request.tools)) == (expected, 1)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"n": 2}, "n"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"tools": [LOOK], "tool_choice": {"name": "x"}}, "tool_choice"),
        ({"tool_choice": "perhaps"}, "tool_choice"),
        ({"reasoning_effort": "enormous"}, "reasoning_effort"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (saying({"type": "input_audio"}), "messages.0.content.0.type"),
        (saying({"type": "image_url"}), "messages.0.content.0.image_url"),
        ({"temperature": 99}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"backend": "No Such"}, "backend"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_by_its_field(given: dict[str, Any], field: str) -> None:
    # ai-dynamo/dynamo #7930: n > 1 cannot be continued; here it is refused.
    assert refused(**given) == field


def test_an_answer_has_every_field_that_clients_read() -> None:
    call = ToolCallDelta(index=0, id="call_0", name="f", arguments="{}")
    usage = Usage(prompt_tokens=3, completion_tokens=4, cached_tokens=1, reasoning_tokens=2)
    answer = response_body(
        HEADING,
        fold(
            [
                Delta(thinking="hm"),
                Delta(tool_calls=(call,)),
                Done(finish_reason="tool_calls", usage=usage),
            ]
        ),
    )

    assert answer == {
        "id": f"chatcmpl-{HEADING.job_id}",
        "object": "chat.completion",
        "created": 1767225600,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": None,
                    "refusal": None,
                    "reasoning_content": "hm",
                    "tool_calls": [
                        {
                            "id": "call_0123456789abcdef012345670",
                            "type": "function",
                            "function": {"name": "f", "arguments": "{}"},
                        }
                    ],
                },
                "logprobs": None,
                "finish_reason": "tool_calls",
            }
        ],
        "usage": {
            "prompt_tokens": 3,
            "completion_tokens": 4,
            "total_tokens": 7,
            "prompt_tokens_details": {"cached_tokens": 1},
            "completion_tokens_details": {"reasoning_tokens": 2},
        },
        "service_tier": "default",
        "system_fingerprint": None,
    }


def test_a_stream_names_the_role_first_and_ends_with_done() -> None:
    chunks = told(Started(attempt=1, worker="w", backend="b"), Delta(content="a"), Done())

    assert [c["choices"][0]["delta"] for c in chunks[:-1]] == [
        {"role": "assistant", "content": "", "refusal": None},
        {"content": "a"},
        {},
    ]
    assert [c["choices"][0]["finish_reason"] for c in chunks[:-1]] == [None, None, "stop"]
    assert chunks[-1] == "[DONE]"
    assert "usage" not in chunks[0]


def test_usage_is_a_chunk_of_its_own_when_asked_for() -> None:
    *chunks, last, _ = told(
        Delta(content="a"), Done(usage=Usage(prompt_tokens=1, completion_tokens=2)), with_usage=True
    )

    assert {chunk["usage"] for chunk in chunks} == {None}
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 3


def test_fragments_of_calls_keep_their_index_and_the_first_its_id() -> None:
    first = ToolCallDelta(index=1, id="chatcmpl-tool-9f8e", name="f")
    rest = ToolCallDelta(index=1, arguments='{"a"')
    _, begun, more, _ = deltas(Delta(tool_calls=(first,)), Delta(tool_calls=(rest,)), Done())

    assert begun["tool_calls"] == [
        {
            "index": 1,
            "id": "chatcmpl-tool-9f8e",
            "type": "function",
            "function": {"name": "f", "arguments": ""},
        }
    ]
    assert more["tool_calls"] == [{"index": 1, "function": {"arguments": '{"a"'}}]


def test_what_a_backend_wants_back_goes_with_the_call_and_comes_back() -> None:
    # Gemini 3 answers 400 to a call that has lost its signature.
    meta = {"google": {"thoughtSignature": "s"}}
    call = ToolCallDelta(index=0, id="c1a2b3", name="f", arguments="{}", provider_meta=meta)
    _, streamed, _ = deltas(Delta(tool_calls=(call,)), Done())
    message = response_body(HEADING, fold([Delta(tool_calls=(call,)), Done()]))["choices"][0][
        "message"
    ]
    request = ask(messages=[message])

    assert streamed["tool_calls"][0]["extra_content"] == meta
    assert request.messages[0].tool_calls[0].provider_meta == meta


def test_thoughts_refusals_and_likelihoods_have_their_places() -> None:
    likely = LogProb(token="a", logprob=-0.5)
    chunks = told(
        Delta(thinking="hm"), Delta(refusal="no"), Delta(content="a", logprobs=(likely,))
    )[1:]

    assert chunks[0]["choices"][0]["delta"] == {"reasoning_content": "hm"}
    assert chunks[1]["choices"][0]["delta"] == {"refusal": "no"}
    assert chunks[2]["choices"][0]["logprobs"] == {
        "content": [{"token": "a", "logprob": -0.5, "bytes": None, "top_logprobs": []}],
        "refusal": None,
    }


@given(st.lists(st.text(min_size=1), max_size=5))
def test_no_text_is_changed_and_none_cuts_a_line(texts: list[str]) -> None:
    chunks = ChatChunks(HEADING, with_usage=False)
    data = chunks.render(frames(*(Delta(content=text) for text in texts), Done()))
    lines = [line for line in data.decode().splitlines() if line]
    parsed = [json.loads(line.removeprefix("data: ")) for line in lines[1:-2]]

    assert lines[-1] == "data: [DONE]"
    assert [chunk["choices"][0]["delta"]["content"] for chunk in parsed] == texts


def test_ids_that_servers_count_are_made_unique_and_others_kept() -> None:
    assert unique_call_id("call_0", "a" * 32, 0) == f"call_{'a' * 24}0"
    # A template of Mistral's wants nine letters and digits, as its server has made them.
    assert unique_call_id("a1B2c3D4e", "a" * 32, 0) == "a1B2c3D4e"


def test_what_fails_in_a_stream_is_an_error_at_which_clients_raise() -> None:
    problem = Problem(type="t", title="T", status=502, detail="it broke", code="server_fault")
    data = ChatChunks(HEADING, with_usage=False).render_error(problem)

    assert json.loads(data.removeprefix(b"data: ")) == {
        "error": {
            "message": "it broke",
            "type": "server_error",
            "param": None,
            "code": "server_fault",
        }
    }
