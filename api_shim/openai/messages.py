"""OpenAI's messages as the contract has them. Pure.

Source: openai/openai-openapi, ChatCompletionRequestMessage; `reasoning_content` and `reasoning` are
where other servers and clients keep an assistant's thoughts.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

from pydantic import Field
from pydantic_core import to_json

from api_shim.openai.asked import Body, unsupported, wrong
from contract.chat import ImagePart, Message, Part, Role, TextPart, ToolCall

_ROLES: Final[dict[str, Role]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}


class ImageUrl(Body):
    """Where an image is."""

    url: str = Field(min_length=1)
    """http(s), or a data URL with base64."""


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
    reasoning: str | None = None
    refusal: str | None = None
    extra_content: dict[str, Any] | None = None
    """What the backend wants back with the message, as it came."""


def to_messages(messages: Iterable[MessageBody]) -> tuple[Message, ...]:
    """Every turn; raises Refusal for what no backend is given."""
    return tuple(_message(f"messages.{at}", message) for at, message in enumerate(messages))


def _message(field: str, message: MessageBody) -> Message:
    content = _content(f"{field}.content", message.content)
    if message.refusal and not content:
        content = message.refusal
    return Message(
        role=_ROLES[message.role],
        content=content,
        thinking=message.reasoning_content or message.reasoning,
        tool_calls=tuple(_calls(field, message)),
        tool_call_id=message.tool_call_id,
        tool_name=message.name if message.role in {"tool", "function"} else None,
        provider_meta=message.extra_content,
    )


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
            return ImagePart(image=image if isinstance(image, str) else image.url)
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
    text = to_json(arguments).decode() if isinstance(arguments, dict) else arguments
    return ToolCall(name=function.name, arguments=text or "{}", **fields)
