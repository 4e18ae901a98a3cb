"""Items of a conversation, as `/v1/responses` has them, between its words and the contract's. Pure.

An item is a part of a turn: where the contract has one message of an assistant with thoughts, words
and calls, here are several items. Each has an id that begins with its job's, so that a later
request can name it (`item_reference`).
Source: openai/openai-openapi, InputItem and Item.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, Literal, NamedTuple

from api_shim.openai.request_fields import OpenAIRequestBody, shown, unsupported, wrong
from api_shim.submission.ignored_fields import LeftAlone
from contract.chat import Message, Part, Role, TextPart, ToolCall
from contract.json_lines import json_line

_ID: Final = re.compile(r"^(?:msg|rs|fc|fco)_([0-9a-f]{32})_")
_ROLES: Final[Mapping[str, Role]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}
_TEXTS: Final = frozenset({"input_text", "output_text", "text", "summary_text", "reasoning_text"})


class ItemPartBody(OpenAIRequestBody):
    """A part of an item's content."""

    type: str
    """`input_text`, `output_text`, `refusal` or `input_image`; files and sounds are refused."""
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None
    """http(s), or a data URL with base64."""
    detail: Annotated[str | None, LeftAlone(unless=("auto",))] = None
    """Left to the backend."""


Content = str | list[ItemPartBody]


class ItemBody(OpenAIRequestBody):
    """A part of a conversation."""

    type: str = "message"
    """`message`, `function_call`, `function_call_output`, `reasoning` or `item_reference`."""
    id: str | None = None
    """Which item is referred to; in an item that is sent whole, only its name."""
    status: Annotated[str | None, LeftAlone(unless=("completed",))] = None
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: Content | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | dict[str, Any] | None = None
    output: Content | None = None
    summary: list[ItemPartBody] | None = None
    extra_content: dict[str, Any] | None = None
    """What the backend wants back with the item, as it came (Gemini's thought signature)."""


class Piece(NamedTuple):
    """What one item says, as a message of its own; `joined` makes turns of pieces."""

    id: str
    message: Message


class Known(NamedTuple):
    """What is known of earlier responses when a request is translated."""

    past: tuple[Message, ...] = ()
    """The conversation up to and with the answer that the request goes on from."""
    chain: tuple[str, ...] = ()
    """The jobs in which it took place, the oldest first."""
    pieces: Mapping[str, Message] = {}
    """Items by id."""


def job_of(item_id: str) -> str | None:
    """The job in which an item was said or asked; None if the id is not ours."""
    found = _ID.match(item_id)
    return found.group(1) if found else None


def to_messages(items: Sequence[ItemBody], known: Known) -> tuple[Message, ...]:
    """The turns that these items are; raises Refusal for what no backend is given."""
    pieces = [
        piece
        for at, item in enumerate(items)
        if (piece := _piece(f"input.{at}", item, known)) is not None
    ]
    return joined(pieces, known.past)


def joined(pieces: Iterable[Message], past: Sequence[Message] = ()) -> tuple[Message, ...]:
    """Turns: the assistant's thoughts, words and calls that follow each other are one message."""
    turns: list[Message] = []
    tools = {call.id: call.name for message in past for call in message.tool_calls}
    for piece in pieces:
        tools |= {call.id: call.name for call in piece.tool_calls}
        if turns and _belong_together(turns[-1], piece):
            turns[-1] = _both(turns[-1], piece)
        elif piece.role == "tool" and not piece.tool_name:
            # Some servers know results by the name of the tool, not by the call's id.
            turns.append(piece.model_copy(update={"tool_name": tools.get(piece.tool_call_id)}))
        else:
            turns.append(piece)
    return tuple(turns)


def _belong_together(turn: Message, piece: Message) -> bool:
    """Calls and their results must be neighbours, so calls are in the last message before them."""
    if not turn.role == piece.role == "assistant":
        return False
    return bool(turn.tool_calls) or not (turn.content and (piece.content or piece.thinking))


def _both(turn: Message, piece: Message) -> Message:
    return turn.model_copy(
        update={
            "content": turn.text + piece.text,
            "thinking": (turn.thinking or "") + (piece.thinking or "") or None,
            "tool_calls": (*turn.tool_calls, *piece.tool_calls),
            "provider_meta": piece.provider_meta or turn.provider_meta,
        }
    )


def _piece(field: str, item: ItemBody, known: Known) -> Message | None:
    match item.type:
        case "message":
            return _message(field, item)
        case "function_call":
            return _call(field, item)
        case "function_call_output":
            return _output(field, item)
        case "reasoning":
            parts = item.content or item.summary or []
            text = parts if isinstance(parts, str) else "".join(part.text or "" for part in parts)
            return Message(role="assistant", thinking=text) if text else None
        case "item_reference":
            return _referred(field, item, known)
        case other:
            raise unsupported(
                f"{field}.type", f"items of type {other[:40]!r} are not passed on to backends"
            )


def _message(field: str, item: ItemBody) -> Message:
    if item.role is None:
        raise wrong(f"{field}.role", "required: user, assistant, system or developer")
    content = _content(f"{field}.content", item.content)
    if item.role == "assistant" and not isinstance(content, str):
        raise wrong(f"{field}.content", "what the assistant said is text")
    return Message(role=_ROLES[item.role], content=content, provider_meta=item.extra_content)


def _call(field: str, item: ItemBody) -> Message:
    if not item.name or not item.call_id:
        raise wrong(field, "a function_call has a name and a call_id")
    arguments = item.arguments
    text = json_line(arguments).decode() if isinstance(arguments, dict) else arguments
    call = ToolCall(
        id=item.call_id,
        name=item.name,
        arguments=text or "{}",
        provider_meta=item.extra_content,
    )
    return Message(role="assistant", tool_calls=(call,))


def _output(field: str, item: ItemBody) -> Message:
    if not item.call_id:
        raise wrong(f"{field}.call_id", "required: the call whose result this is")
    content = _content(f"{field}.output", item.output)
    return Message(role="tool", content=content, tool_call_id=item.call_id, tool_name=item.name)


def _referred(field: str, item: ItemBody, known: Known) -> Message | None:
    found = known.pieces.get(item.id or "")
    if found is None and job_of(item.id or "") not in known.chain:
        raise wrong(f"{field}.id", "no item of a stored response has this id")
    # What the chain has said stands in the conversation: clients name it as well (vercel/ai #15492)
    return found


def _content(field: str, content: Content | None) -> str | tuple[Part, ...]:
    if content is None or isinstance(content, str):
        return content or ""
    parts = tuple(_part(f"{field}.{at}", part) for at, part in enumerate(content))
    texts = [part.text for part in parts if isinstance(part, TextPart)]
    return "".join(texts) if len(texts) == len(parts) else parts


def _part(field: str, part: ItemPartBody) -> Part:
    if part.type in _TEXTS:
        return TextPart(text=part.text or "")
    match part.type:
        case "refusal":
            return TextPart(text=part.refusal or "")
        case "input_image" if part.image_url:
            return shown(f"{field}.image_url", part.image_url)
        case "input_image":
            raise unsupported(field, "an image is passed on by its image_url (a data URL will do)")
        case other:
            raise unsupported(
                f"{field}.type",
                f"parts of type {other[:40]!r} are not passed on; there are input_text and "
                "input_image",
            )


def asked(job_id: str, messages: Sequence[Message]) -> Iterator[tuple[Piece, dict[str, Any]]]:
    """What a job was asked: each item's piece, and how a list of input items tells it."""
    number = 0
    for message in messages:
        for prefix, piece, fields in _items(message):
            id = f"{prefix}_{job_id}_in{number}"
            number += 1
            yield Piece(id, piece), {"id": id, "status": "completed", **fields}


def _items(message: Message) -> Iterator[tuple[str, Message, dict[str, Any]]]:
    if message.thinking:
        told = {"summary": [], "content": [{"type": "reasoning_text", "text": message.thinking}]}
        yield "rs", Message(role="assistant", thinking=message.thinking), reasoning(told)
    if message.role == "tool":
        output = message.content if isinstance(message.content, str) else _parts(message)
        fields = {"call_id": message.tool_call_id, "output": output}
        yield "fco", message, {"type": "function_call_output", **fields}
    elif message.content or not (message.tool_calls or message.thinking):
        alone = message.model_copy(update={"thinking": None, "tool_calls": ()})
        fields = {"type": "message", "role": message.role, "content": _parts(message)}
        yield "msg", alone, {**fields, **extra(message.provider_meta)}
    for call in message.tool_calls:
        fields = {"call_id": call.id, "name": call.name, "arguments": call.arguments}
        piece = Message(role="assistant", tool_calls=(call,))
        yield "fc", piece, {"type": "function_call", **fields, **extra(call.provider_meta)}


def reasoning(fields: Mapping[str, Any]) -> dict[str, Any]:
    """An item with thoughts."""
    return {"type": "reasoning", **fields, "encrypted_content": None}


def extra(meta: dict[str, Any] | None) -> dict[str, Any]:
    """What a backend wants back with an item."""
    return {"extra_content": meta} if meta else {}


def _parts(message: Message) -> list[dict[str, Any]]:
    if message.role == "assistant":
        return [{"type": "output_text", "text": message.text, "annotations": [], "logprobs": []}]
    if isinstance(message.content, str):
        return [{"type": "input_text", "text": message.content}]
    return [_told(part) for part in message.content]


def _told(part: Part) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "input_text", "text": part.text}
    return {"type": "input_image", "image_url": part.image, "detail": "auto"}
