"""A chat as a model's own template takes it, for backends that have the model in memory. Pure."""

import re
from typing import Any, Final, NamedTuple

from pydantic_core import from_json

from contract.chat import ChatRequest, JsonFormat, Message, NamedTool, SchemaFormat, Tool
from contract.errors import (
    InvalidRequest,
    NotSupported,
)
from workers.backends.tools import tool_definition

_THOUGHTS: Final = re.compile(r"reasoning_content|\.thinking\b|[\"']thinking[\"']")
"""Where a template has a place for what the assistant thought in earlier turns."""
_NEVER_DONE: Final = ("truncate", "shift")
"""The prompt is never cut and the context never slides: false is what happens."""


class TemplatedChat(NamedTuple):
    """What a template is filled with, and what the answer must look like."""

    messages: list[dict[str, Any]]
    """None where raw text is to be continued, with no template around it: `said` is that text."""
    said: str
    """The answer's beginning, to be continued."""
    tools: list[dict[str, Any]] | None
    context: dict[str, Any]
    """More words for the template."""
    schema: dict[str, Any] | None
    """What the answer must conform to."""
    is_call: bool
    """Whether that is a call of a tool."""
    ignored: tuple[str, ...]


def templated(request: ChatRequest) -> TemplatedChat:
    """Everything but the sampling; raises NotSupported."""
    messages, said = list(request.messages), _raw(request)
    if len(messages) > 1 and messages[-1].role == "assistant" and not messages[-1].tool_calls:
        said = messages.pop().text
    tools = request.tools if request.tool_choice != "none" else ()
    forced = _forced(request, tools)
    thinks = {} if request.think == "auto" else {"enable_thinking": request.think != "off"}
    leveled = request.think not in {"auto", "off", "on"}
    effort = {"reasoning_effort": request.think} if leveled else {}
    return TemplatedChat(
        messages=[_message(at, message) for at, message in enumerate(messages)],
        said=said,
        tools=[tool_definition(tool) for tool in tools] or None,
        context=thinks | effort,
        schema=forced or _schema(request),
        is_call=forced is not None,
        ignored=_ignored(request),
    )


def _raw(request: ChatRequest) -> str:
    return request.prompt if isinstance(request.prompt, str) else ""


def unsupported_fields(asked: TemplatedChat, template: str) -> tuple[str, ...]:
    """What of the request this template has no place for.

    Raises NotSupported for tools: the model would never hear of them.
    """
    if asked.tools and "tools" not in template:
        raise NotSupported("tools: the model's chat template has no place for them")
    unsupported = []
    if asked.context and not any(word in template for word in asked.context):
        unsupported.append("think")
    if any("thinking" in message for message in asked.messages) and not _THOUGHTS.search(template):
        unsupported.append("messages[].thinking")
    return tuple(unsupported)


def _ignored(request: ChatRequest) -> tuple[str, ...]:
    ignored = [name for name in _NEVER_DONE if getattr(request, name)]
    if request.keep_alive_s is not None and request.keep_alive_s > 0:
        # Zero unloads, negative is what happens anyhow.
        ignored.append("keep_alive_s")
    return tuple(ignored)


def _schema(request: ChatRequest) -> dict[str, Any] | None:
    match request.response_format:
        case SchemaFormat(schema_=schema):
            return schema
        case JsonFormat():
            return {"type": "object"}
        case _:
            return None


def _forced(request: ChatRequest, tools: tuple[Tool, ...]) -> dict[str, Any] | None:
    """The schema of a call, where one must be made; a grammar makes it valid."""
    match request.tool_choice:
        case NamedTool(name=name):
            tools = tuple(tool for tool in tools if tool.name == name)
            if not tools:
                raise NotSupported(f"tool_choice: no tool is called {name!r}")
        case "required" if tools:
            pass
        case _:
            return None
    calls = [_call(tool) for tool in tools]
    return calls[0] if len(calls) == 1 else {"anyOf": calls}


def _call(tool: Tool) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "name": {"const": tool.name},
            "arguments": tool.parameters or {"type": "object", "properties": {}},
        },
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _message(at: int, message: Message) -> dict[str, Any]:
    if message.images:
        raise NotSupported(f"messages[{at}].content: this backend takes no images")
    fields: dict[str, Any] = {"role": message.role, "content": message.text}
    if message.thinking:
        # Qwen's and DeepSeek's templates have the one word, gpt-oss's the other.
        fields |= {"reasoning_content": message.thinking, "thinking": message.thinking}
    if message.tool_calls:
        fields["tool_calls"] = [
            {
                "id": call.id or f"call_{number}",
                "type": "function",
                # Templates write arguments as JSON themselves: text would be quoted twice.
                "function": {"name": call.name, "arguments": _object(at, call.arguments)},
            }
            for number, call in enumerate(message.tool_calls)
        ]
    if message.role == "tool":
        fields["tool_call_id"] = message.tool_call_id or "call_0"
        fields["name"] = message.tool_name or ""
    return fields


def _object(at: int, arguments: str) -> Any:
    try:
        return from_json(arguments or "{}")
    except ValueError:
        raise InvalidRequest(f"messages[{at}].tool_calls: arguments are no JSON") from None
