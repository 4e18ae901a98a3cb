"""Tools that are no functions become some, and their calls come back as what they were."""

from typing import Any

import pytest

from api_shim.http.problems import Refusal
from api_shim.openai.response_head import ResponseHead
from api_shim.openai.responses.events import ResponseBuilder
from api_shim.openai.responses.items import EarlierResponses
from api_shim.openai.responses.request import ResponseBody, to_request
from api_shim.openai.responses.response import ResponseFacts
from api_shim.openai.responses.response_tools import text_of
from contract.chat import NamedTool
from contract.events import Delta, Done, EventId, Frame

LARK = {"type": "grammar", "syntax": "lark", "definition": 'start: "x"'}
TOOLS = [
    {"type": "function", "name": "plain", "parameters": {"type": "object"}},
    {"type": "custom", "name": "patch", "description": "Patch.", "format": LARK},
    {
        "type": "namespace",
        "name": "team",
        "description": "Agents",
        "tools": [{"type": "function", "name": "close", "parameters": {"type": "object"}}],
    },
    {"type": "web_search", "external_web_access": True},
]


def body(**fields: Any) -> ResponseBody:
    return ResponseBody.model_validate({"model": "m", "input": "x", "tools": TOOLS, **fields})


def answered(
    *calls: tuple[str, str], **fields: Any
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The events of an answer with these calls, and its output."""
    request = to_request(body(**fields), EarlierResponses())
    facts = ResponseFacts(ResponseHead("0" * 32, 1, "m", "standard"), request)
    builder = ResponseBuilder(facts)
    events: list[dict[str, Any]] = []
    deltas = [
        Delta.model_validate(
            {"tool_calls": [{"index": at, "id": f"c-{at}", "name": name, "arguments": text}]}
        )
        for at, (name, text) in enumerate(calls)
    ]
    for seq, event in enumerate([*deltas, Done(finish_reason="tool_calls")], 1):
        frame = Frame.of(EventId(1, seq), 1.0, event)
        events += [told for _, told in builder.add(frame)]
    return events, builder.response["output"]


def test_namespaces_and_custom_tools_become_functions() -> None:
    request = to_request(body(), EarlierResponses())

    assert [tool.name for tool in request.tools] == ["plain", "patch", "team__close"]
    assert request.tools[1].parameters["required"] == ["input"]
    assert 'start: "x"' in request.tools[1].description
    assert body().left_out == ("tools[web_search]",)


def test_calls_come_back_as_the_client_knows_them() -> None:
    events, output = answered(
        ("plain", '{"a":1}'), ("team__close", '{"b":2}'), ("patch", '{"input":"*** Begin"}')
    )
    plain, close, patch = output

    assert (plain["type"], plain["name"], "namespace" in plain) == ("function_call", "plain", False)
    assert (close["name"], close["namespace"], close["arguments"]) == ("close", "team", '{"b":2}')
    assert (patch["type"], patch["name"], patch["input"]) == (
        "custom_tool_call",
        "patch",
        "*** Begin",
    )
    kinds = [event["type"] for event in events]
    assert "response.custom_tool_call_input.delta" in kinds
    assert events[kinds.index("response.custom_tool_call_input.done")]["input"] == "*** Begin"
    assert kinds[-1] == "response.completed"


def test_a_long_name_is_shortened_for_the_backend_and_whole_for_the_client() -> None:
    names = ["n" * 60 + end for end in ("aaaa", "bbbb")]
    tools = [
        {"type": "namespace", "name": "m" * 64, "tools": [{"type": "custom", "name": name}]}
        for name in names
    ]
    sent = to_request(body(tools=tools), EarlierResponses()).tools
    _, (call,) = answered((sent[1].name, '{"input":"x"}'), tools=tools)
    choice = {"type": "custom", "name": names[0], "namespace": "m" * 64}
    chosen = to_request(body(tools=tools, tool_choice=choice), EarlierResponses())

    assert [len(tool.name) for tool in sent] == [64, 64]
    assert (call["type"], call["name"], call["namespace"]) == (
        "custom_tool_call",
        names[1],
        "m" * 64,
    )
    assert chosen.tool_choice == NamedTool(name=sent[0].name)


def test_a_function_that_is_called_without_its_namespace_is_found_if_it_is_the_only_one() -> None:
    other = {"type": "namespace", "name": "other", "tools": TOOLS[2]["tools"]}
    _, (called,) = answered(("close", "{}"))
    _, (unclear,) = answered(("close", "{}"), tools=[*TOOLS, other])

    assert (called["name"], called["namespace"]) == ("close", "team")
    assert "namespace" not in unclear


def test_a_namespace_without_a_name_is_none() -> None:
    tools = [
        {
            "type": "namespace",
            "tools": [{"type": "custom", "name": "patch"}, {"type": "web_search"}],
        }
    ]
    _, (call,) = answered(("patch", '{"input":"x"}'), tools=tools)

    assert (call["type"], call["name"], "namespace" in call) == ("custom_tool_call", "patch", False)
    assert body(tools=tools).left_out == ("tools[web_search]",)


def test_allowed_tools_may_name_some_that_run_elsewhere() -> None:
    allowed = [{"type": "custom", "name": "patch"}, {"type": "web_search"}]

    def choosing(tools: list[dict[str, Any]]) -> Any:
        choice = {"type": "allowed_tools", "mode": "auto", "tools": tools}
        return to_request(body(tool_choice=choice), EarlierResponses())

    assert [tool.name for tool in choosing(allowed).tools] == ["patch"]
    with pytest.raises(Refusal, match="web_search"):
        choosing(allowed[1:])


@pytest.mark.parametrize("sent", ["bare text", '{"text":"bare text"}', '"bare text"'])
def test_the_text_of_a_custom_tool_is_found_however_the_model_sends_it(sent: str) -> None:
    _, (call,) = answered(("patch", sent))

    assert call["input"] == "bare text"


def test_what_clients_send_back_is_understood_or_passed_over() -> None:
    asked = body(
        input=[
            {"role": "user", "content": "go"},
            {"type": "reasoning", "summary": [], "encrypted_content": "x"},
            {"type": "custom_tool_call", "call_id": "c1", "name": "patch", "input": "*** Begin"},
            {"type": "custom_tool_call_output", "call_id": "c1", "output": "done"},
            {"type": "function_call", "call_id": "c2", "name": "close", "namespace": "team",
             "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c2",
             "output": [{"type": "input_text", "text": "closed"}]},
            {"type": "web_search_call", "id": "w", "status": "completed", "action": {"q": "x"}},
            {"type": "local_shell_call", "call_id": "s", "action": {}, "status": "completed"},
        ]
    )  # fmt: skip
    left_out = asked.left_out
    _, first, done, second, closed = to_request(asked, EarlierResponses()).messages

    assert first.tool_calls[0].arguments == '{"input":"*** Begin"}'
    assert (done.role, done.content, done.tool_name) == ("tool", "done", "patch")
    assert second.tool_calls[0].name == "team__close"
    assert closed.content == "closed"
    assert left_out == (
        "tools[web_search]",
        "input[web_search_call]",
        "input[local_shell_call]",
    )


def test_a_choice_of_a_custom_tool_is_one_of_its_function() -> None:
    request = to_request(body(tool_choice={"type": "custom", "name": "patch"}), EarlierResponses())

    assert request.tool_choice == NamedTool(name="patch")
    with pytest.raises(Refusal, match="web_search"):
        to_request(body(tool_choice={"type": "web_search"}), EarlierResponses())


@pytest.mark.parametrize(
    ("first", "field"),
    [
        ({"type": "function", "name": "team__close"}, "tools.1.tools.0.name"),
        (
            {"type": "namespace", "name": "team", "tools": [{"type": "custom", "name": "close"}]},
            "tools.1.tools.0.name",
        ),
    ],
)
def test_different_tools_do_not_become_one_function(first: dict[str, Any], field: str) -> None:
    with pytest.raises(Refusal, match=r"'team__close'") as refused:
        to_request(body(tools=[first, TOOLS[2]]), EarlierResponses())
    assert field in str(refused.value)


def test_a_tool_that_is_sent_twice_is_no_fault() -> None:
    request = to_request(body(tools=[TOOLS[2], TOOLS[2]]), EarlierResponses())
    assert [tool.name for tool in request.tools] == ["team__close"] * 2


@pytest.mark.parametrize("text", ['{"input":[' + "[]," * 60_000 + "[]]}", '{"input":NaN}'])
def test_arguments_that_cannot_be_read_are_the_text_of_a_custom_tool(text: str) -> None:
    assert text_of(text) == text
