"""A chat in the words of a model's template, and what its answer must look like."""

from typing import Any

import pytest

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
from contract.errors import (
    InvalidRequest,
    NotSupported,
)
from workers.backends.in_process.chat_template import templated, unsupported_fields

USER = Message(role="user", content="hi")
TOOLS = (Tool(name="a", parameters={"type": "object"}), Tool(name="b"))


def ask(*messages: Message, **fields: Any) -> ChatRequest:
    return ChatRequest(model="m", messages=messages or (USER,), **fields)


def test_turns_are_plain_text() -> None:
    answer = Message(role="assistant", content="yes")
    parts = Message(role="user", content=(TextPart(text="a"), TextPart(text="b")))

    assert templated(ask(USER, answer, parts)).messages == [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "ab"},
    ]


def test_an_answer_that_began_is_no_turn() -> None:
    chat = templated(ask(USER, Message(role="assistant", content="It is")))

    assert (len(chat.messages), chat.prefix) == (1, "It is")


def test_arguments_of_a_call_are_an_object() -> None:
    calls = (ToolCall(name="a", arguments='{"x": 1}'),)
    chat = templated(ask(USER, Message(role="assistant", tool_calls=calls), USER))

    assert chat.messages[1]["tool_calls"] == [
        {"id": "call_0", "type": "function", "function": {"name": "a", "arguments": {"x": 1}}}
    ]


def test_arguments_that_are_no_json_are_the_callers_fault() -> None:
    message = Message(role="assistant", tool_calls=(ToolCall(name="a", arguments="{"),))
    with pytest.raises(InvalidRequest, match=r"messages\[0\]"):
        templated(ask(message, USER))


def test_images_are_refused() -> None:
    with pytest.raises(NotSupported, match="images"):
        templated(ask(Message(role="user", content=(ImagePart(image="iVBORw0KGgo="),))))


@pytest.mark.parametrize(
    ("think", "context"),
    [
        ("auto", {}),
        ("off", {"enable_thinking": False}),
        ("low", {"enable_thinking": True, "reasoning_effort": "low"}),
    ],
)
def test_templates_get_the_thinking_variables(think: Any, context: dict[str, Any]) -> None:
    assert templated(ask(think=think)).context == context


def test_a_format_is_a_schema() -> None:
    schema = {"type": "array"}

    assert templated(ask()).schema is None
    assert templated(ask(response_format=JsonFormat())).schema == {"type": "object"}
    assert templated(ask(response_format=SchemaFormat(schema_=schema))).schema == schema


def test_tools_are_offered_and_none_is_forced() -> None:
    chat = templated(ask(tools=TOOLS))

    assert chat.tools is not None
    assert [tool["function"]["name"] for tool in chat.tools] == ["a", "b"]
    assert (chat.schema, chat.is_call) == (None, False)
    assert templated(ask(tools=TOOLS, tool_choice="none")).tools is None


def test_a_call_that_must_be_made_is_a_schema_of_its_json() -> None:
    named = templated(ask(tools=TOOLS, tool_choice=NamedTool(name="b")))
    any_of_them = templated(ask(tools=TOOLS, tool_choice="required"))

    assert named.is_call
    assert named.schema is not None
    assert named.schema["properties"]["name"] == {"const": "b"}
    assert any_of_them.schema is not None
    assert len(any_of_them.schema["anyOf"]) == 2


def test_a_tool_that_was_not_offered_cannot_be_forced() -> None:
    with pytest.raises(NotSupported, match="'c'"):
        templated(ask(tools=TOOLS, tool_choice=NamedTool(name="c")))


def test_ignored_fields_are_reported() -> None:
    wishes = {"truncate": True, "shift": True, "keep_alive_s": 60.0}

    assert templated(ask(**wishes)).ignored == ("truncate", "shift", "keep_alive_s")
    assert templated(ask(truncate=False, shift=False, keep_alive_s=0)).ignored == ()


def test_fields_that_a_template_does_not_render_are_reported_or_refused() -> None:
    assert unsupported_fields(templated(ask(think="off")), "{% if enable_thinking %}") == ()
    assert unsupported_fields(templated(ask(think="off")), "{{ messages }}") == ("think",)
    with pytest.raises(NotSupported, match="tools"):
        unsupported_fields(templated(ask(tools=TOOLS)), "{{ messages }}")
