"""The body of POST /v1/messages becomes a chat; thinking, tools and forms are mapped."""

import copy
from typing import Any

import pytest

from api_shim.anthropic.message_body import MessagesBody
from api_shim.anthropic.message_request import (
    EarlierTurns,
    Translated,
    to_counted,
    to_request,
)
from api_shim.http.problems import Refusal
from contract.chat import ChatRequest, Message, NamedTool, SchemaFormat, Tool

TOOLS = [
    {"name": "a", "input_schema": {"type": "object"}, "strict": True},
    {"name": "late", "input_schema": {}, "defer_loading": True},
    {"type": "web_search_20250305", "name": "web_search", "max_uses": 2},
]


def translated(**fields: Any) -> Translated:
    whole = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
    return to_request(MessagesBody.model_validate({**whole, **fields}))


def asked(**fields: Any) -> ChatRequest:
    return translated(**fields).request


@pytest.mark.parametrize(
    ("fields", "think", "may_not_think"),
    [
        ({}, "auto", True),
        ({"thinking": {"type": "disabled"}}, "off", True),
        ({"thinking": {"type": "adaptive"}}, "auto", True),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}, "xhigh", True),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "low", False),
        ({"thinking": {"type": "enabled", "budget_tokens": 8000}}, "medium", False),
        ({"thinking": {"type": "enabled", "budget_tokens": 32000}}, "high", False),
        ({"output_config": {"effort": "low"}}, "low", True),
    ],
)
def test_thinking_becomes_a_level(fields: Any, think: str, *, may_not_think: bool) -> None:
    found = translated(**fields)

    assert (found.request.think, found.may_not_think) == (think, may_not_think)


@pytest.mark.parametrize(
    ("choice", "ours", "parallel"),
    [
        ({"type": "auto"}, "auto", None),
        ({"type": "auto", "disable_parallel_tool_use": True}, "auto", False),
        ({"type": "any", "disable_parallel_tool_use": False}, "required", True),
        ({"type": "tool", "name": "a"}, NamedTool(name="a"), None),
        ({"type": "none"}, "none", None),
    ],
)
def test_tool_choices_are_the_contracts(choice: Any, ours: Any, *, parallel: bool | None) -> None:
    request = asked(tools=TOOLS, tool_choice=choice)

    assert (request.tool_choice, request.parallel_tool_calls) == (ours, parallel)


def test_tools_of_anthropics_are_left_out_and_late_ones_wait_for_a_reference() -> None:
    found = translated(tools=TOOLS)
    reference = {"type": "tool_reference", "tool_name": "late"}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [reference]}
    later = asked(tools=TOOLS, messages=[{"role": "user", "content": [result]}])

    assert found.request.tools == (Tool(name="a", parameters={"type": "object"}, strict=True),)
    assert "tools[web_search_20250305]" in found.left_out
    assert [tool.name for tool in later.tools] == ["a", "late"]


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        (
            {"tool_choice": {"type": "tool", "name": "web_search"}},
            "tool_choice.name",
            "web_search_",
        ),
        ({"tool_choice": {"type": "tool", "name": "no"}}, "tool_choice.name", "no tool is called"),
        ({"tools": TOOLS[2:], "tool_choice": {"type": "any"}}, "tool_choice", "no tool can be"),
        ({"tool_choice": {"type": "x"}}, "tool_choice.type", "auto, any, tool or none"),
        ({"thinking": {"type": "x"}}, "thinking.type", "enabled, adaptive"),
        ({"output_config": {"effort": "x"}}, "output_config.effort", "low, medium"),
        ({"output_config": {"format": {"type": "x"}}}, "output_config.format.type", "json_schema"),
        ({"temperature": 9}, "temperature", "less than or equal"),
        ({"stop_sequences": ["x"] * 17}, "stop_sequences", "at most 16 items"),
        ({"tools": [TOOLS[0], TOOLS[0]]}, "tools.1.name", "another tool is called"),
        (
            {"messages": [{"role": "user", "content": [{"type": "audio"}]}]},
            "messages",
            r"nothing is understood of messages\[\].content\[audio\]",
        ),
    ],
)
def test_a_refusal_names_the_field_and_the_limit(fields: Any, field: str, words: str) -> None:
    with pytest.raises(Refusal, match=words) as refused:
        translated(**{"tools": TOOLS, **fields})

    (error,) = refused.value.extra["errors"]
    assert error.field == field


def test_options_keep_their_meaning() -> None:
    schema = {"type": "object", "properties": {}}
    format = {"type": "json_schema", "schema": schema}
    request = asked(
        temperature=0.5,
        top_p=0.25,
        top_k=3,
        stop_sequences=["a", ""],
        service_tier="standard_only",
        metadata={"user_id": "u"},
        output_config={"format": format},
    )

    assert (request.temperature, request.top_p, request.top_k) == (0.5, 0.25, 3)
    assert (request.stop, request.priority, request.metadata) == (
        ("a",),
        "standard",
        {"user_id": "u"},
    )
    assert request.response_format == SchemaFormat(schema_=schema)


def test_a_prompt_that_is_only_read_asks_for_one_token_without_thinking() -> None:
    request = asked(max_tokens=0, thinking={"type": "enabled", "budget_tokens": 1024})

    assert (request.max_tokens, request.think) == (1, "auto")
    assert request.message_notes
    assert request.message_notes.only_reads


def test_a_thread_inherits_system_turns_and_tools() -> None:
    past = (Message(role="system", content="s"), Message(role="user", content="a"))
    earlier = EarlierTurns((*past, Message(role="assistant", content="b")), (Tool(name="t"),))
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "c"}]}
    request = to_request(MessagesBody.model_validate(body), (), earlier).request

    assert [message.text for message in request.messages] == ["s", "a", "b", "c"]
    assert [tool.name for tool in request.tools] == ["t"]


def test_a_conversation_whose_results_are_too_many_is_told_what_is_counted() -> None:
    ids = [f"t{n}" for n in range(9_999)]
    uses = [{"type": "tool_use", "id": id, "name": "f", "input": {}} for id in ids]
    results = [{"type": "tool_result", "tool_use_id": id, "content": "a"} for id in ids]
    turns = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": uses},
        {"role": "user", "content": results},
    ]
    for read in (to_request, to_counted):
        body = MessagesBody.model_validate(
            {"model": "m", "max_tokens": 9, "messages": copy.deepcopy(turns)}
        )
        with pytest.raises(Refusal, match=r"10000 items, where .* each result of a tool are one"):
            read(body)
