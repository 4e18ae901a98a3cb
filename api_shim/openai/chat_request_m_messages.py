"""OpenAI's messages as the contract has them. Pure.

Source: openai/openai-openapi, ChatCompletionRequestMessage; `reasoning_content` and `reasoning` are
where other servers and clients keep an assistant's thoughts.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import Field
from typing_extensions import override

from api_shim.openai.request_fields import Body, shown, unsupported, wrong
from api_shim.submission.ignored_fields import LeftAlone
from contract.chat import (
    DETAILS,
    Message,
    Part,
    Role,
    TextPart,
    ToolCall,
    thoughts_in,
)
from contract.json_lines import json_line

_ROLES: Final[dict[str, Role]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}


_OF_ASSISTANTS: Final = (
    "reasoning_content",
    "reasoning",
    "reasoning_details",
    "tool_calls",
    "function_call",
    "tool_call_id",
    "name",
)
_NOT_OF_ROLE: Final[dict[str, tuple[str, ...]]] = {
    "assistant": ("tool_call_id", "name"),
    "tool": _OF_ASSISTANTS[:-2],
    "function": _OF_ASSISTANTS[:-2],
}
"""Fields that messages of other roles than these do not have, by role."""


class ImageUrl(Body):
    """Where an image is."""

    url: str = Field(min_length=1)
    """http(s), or a data URL with base64."""
    detail: Annotated[str | None, LeftAlone(unless=("auto",))] = None
    """Left to the backend."""


class PartBody(Body):
    """A part of a message's content."""

    type: str
    """`text`, `image_url` or `refusal`; sounds and files are refused."""
    text: str | None = None
    image_url: ImageUrl | str | None = None
    refusal: str | None = None


class FunctionCall(Body):
    """Which function, with which arguments."""

    name: str
    arguments: str | dict[str, Any] | None = None
    """JSON text."""


class ToolCallBody(Body):
    """A call that the assistant made."""

    id: str | None = None
    type: str = "function"
    function: FunctionCall | None = None
    extra_content: dict[str, Any] | None = None
    """What the backend wants back with the call, as it came (Gemini's thought signature)."""


class MessageBody(Body):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[PartBody] | None = None
    name: str | None = None
    tool_calls: list[ToolCallBody] | None = None
    tool_call_id: str | None = None
    function_call: FunctionCall | None = None
    """Deprecated: a tool call without id."""
    reasoning_content: str | None = None
    """What the assistant thought, sent back to backends that have a word for it."""
    reasoning: str | None = None
    """The same, as vLLM, Ollama and OpenRouter call it."""
    reasoning_details: list[dict[str, Any]] | None = None
    """The same in OpenRouter's pieces, some of them signed or encrypted."""
    refusal: str | None = None
    extra_content: dict[str, Any] | None = None
    """What the backend wants back with the message, as it came."""

    @property
    @override
    def unused(self) -> tuple[str, ...]:
        """What a message of this role has no place for."""
        unused = _NOT_OF_ROLE.get(self.role, _OF_ASSISTANTS)
        twice = ("refusal",) if self.content else ()
        return (*unused, *twice)


def to_messages(messages: Iterable[MessageBody]) -> tuple[Message, ...]:
    """Every turn; raises Refusal for what no backend is given."""
    return tuple(_message(f"messages.{at}", message) for at, message in enumerate(messages))


def _message(field: str, message: MessageBody) -> Message:
    content = _content(f"{field}.content", message.content)
    is_assistant = message.role == "assistant"
    if message.refusal and not content:
        content = message.refusal
    return Message(
        role=_ROLES[message.role],
        content=content,
        thinking=_thoughts(message) if is_assistant else None,
        tool_calls=tuple(_calls(field, message)) if is_assistant else (),
        tool_call_id=message.tool_call_id,
        tool_name=message.name if message.role in {"tool", "function"} else None,
        provider_meta=_meta(message) if is_assistant else message.extra_content,
    )


def _thoughts(message: MessageBody) -> str | None:
    """What the assistant thought, wherever it stands."""
    plain = message.reasoning_content or message.reasoning
    return plain or thoughts_in(message.reasoning_details or ()) or None


def _meta(message: MessageBody) -> dict[str, Any] | None:
    if not message.reasoning_details:
        return message.extra_content
    return {**(message.extra_content or {}), DETAILS: message.reasoning_details}


def _content(field: str, content: str | list[PartBody] | None) -> str | tuple[Part, ...]:
    if content is None or isinstance(content, str):
        return content or ""
    parts = tuple(_part(f"{field}.{at}", part) for at, part in enumerate(content))
    texts = [part.text for part in parts if isinstance(part, TextPart)]
    # Servers that know no parts get text where there is nothing else.
    return _joined(texts) if len(texts) == len(parts) else parts


def _joined(texts: Sequence[str]) -> str:
    return "".join(texts)


def _part(field: str, part: PartBody) -> Part:
    match part.type:
        case "text":
            return TextPart(text=part.text or "")
        case "refusal":
            return TextPart(text=part.refusal or "")
        case "image_url" if part.image_url:
            image = part.image_url
            return shown(f"{field}.image_url", image if isinstance(image, str) else image.url)
        case "image_url":
            raise wrong(f"{field}.image_url", "required in a part of type image_url")
        case other:
            raise unsupported(
                f"{field}.type",
                f"parts of type {other[:40]!r} are not passed on; there are text and image_url",
            )


def _calls(field: str, message: MessageBody) -> Iterable[ToolCall]:
    for at, call in enumerate(message.tool_calls or ()):
        if call.type != "function" or call.function is None:
            raise unsupported(
                f"{field}.tool_calls.{at}.type", "only calls of type function are passed on"
            )
        yield _call(call.function, id=call.id, provider_meta=call.extra_content)
    if message.function_call is not None:
        yield _call(message.function_call)


def _call(function: FunctionCall, **fields: Any) -> ToolCall:
    arguments = function.arguments
    text = json_line(arguments).decode() if isinstance(arguments, dict) else arguments
    return ToolCall(name=function.name, arguments=text or "{}", **fields)
