"""A chat request as input for a model's chat template (Jinja). Does no I/O."""

import re
from typing import Any, Final, NamedTuple

from contract.chat import ChatRequest, JsonFormat, Message, NamedTool, SchemaFormat, Tool
from contract.errors import InvalidRequest, NotSupported
from contract.json_texts.arguments import parsed
from workers.backends.tools import tool_definition

_THOUGHTS: Final = re.compile(r"reasoning_content|\.thinking\b|[\"']thinking[\"']")
"""Matches templates that render the reasoning of earlier assistant messages."""
_IGNORED: Final = ("truncate", "shift")
"""The prompt is never truncated and the context never shifted, so false needs no field."""


class TemplatedChat(NamedTuple):
    """The variables of a template, and the constraints of the response."""

    messages: list[dict[str, Any]]
    """Empty for a raw prompt, which is `prefix` and uses no template."""
    prefix: str
    """The beginning of the response, to be continued."""
    tools: list[dict[str, Any]] | None
    context: dict[str, Any]
    """More variables for the template."""
    schema: dict[str, Any] | None
    """The JSON schema of the response."""
    is_call: bool
    """Whether `schema` is that of a tool call."""
    ignored: tuple[str, ...]


def templated(request: ChatRequest) -> TemplatedChat:
    """The template input of a request, without sampling options.

    A trailing assistant message becomes `prefix`. Raises NotSupported for images or an unknown
    named tool, InvalidRequest for tool arguments that are not JSON.
    """
    messages, prefix = list(request.messages), _raw_prompt(request)
    if len(messages) > 1 and messages[-1].role == "assistant" and not messages[-1].tool_calls:
        prefix = messages.pop().text
    tools = request.tools if request.tool_choice != "none" else ()
    forced = _forced(request, tools)
    thinks = {} if request.think == "auto" else {"enable_thinking": request.think != "off"}
    leveled = request.think not in {"auto", "off", "on"}
    effort = {"reasoning_effort": request.think} if leveled else {}
    return TemplatedChat(
        messages=[_message(at, message) for at, message in enumerate(messages)],
        prefix=prefix,
        tools=[tool_definition(tool) for tool in tools] or None,
        context=thinks | effort,
        schema=forced or _schema(request),
        is_call=forced is not None,
        ignored=_ignored(request),
    )


def _raw_prompt(request: ChatRequest) -> str:
    return request.prompt if isinstance(request.prompt, str) else ""


def unsupported_fields(chat: TemplatedChat, template: str) -> tuple[str, ...]:
    """The fields that this template does not render; raises NotSupported for tools."""
    if chat.tools and "tools" not in template:
        raise NotSupported("tools: the model's chat template does not render them")
    unsupported = []
    if chat.context and not any(word in template for word in chat.context):
        unsupported.append("think")
    if any("thinking" in message for message in chat.messages) and not _THOUGHTS.search(template):
        unsupported.append("messages[].thinking")
    return tuple(unsupported)


def _ignored(request: ChatRequest) -> tuple[str, ...]:
    ignored = [name for name in _IGNORED if getattr(request, name)]
    if request.keep_alive_s is not None and request.keep_alive_s > 0:
        # Zero unloads; negative (forever) is the default.
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
    """The JSON schema of a tool call, if one is required; a grammar enforces it."""
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
        # The names in the templates of Qwen and DeepSeek, and of gpt-oss.
        fields |= {"reasoning_content": message.thinking, "thinking": message.thinking}
    if message.tool_calls:
        fields["tool_calls"] = [
            {
                "id": call.id or f"call_{number}",
                "type": "function",
                # Templates serialize arguments themselves: text would be quoted twice.
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
        return parsed(arguments)
    except ValueError:
        raise InvalidRequest(f"messages[{at}].tool_calls: arguments are not JSON") from None
