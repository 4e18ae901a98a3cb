"""Items of `/v1/responses` as the contract's messages, and back. Pure.

An item is a part of a message: an assistant message of the contract with reasoning, text and calls
is several items here. An item's id contains its job's, so that a later request can name it
(`item_reference`). Source: openai/openai-openapi, InputItem and Item.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import BeforeValidator, Field
from typing_extensions import override

from api_shim.bodies.joined_texts import join_plain, json_text, taken
from api_shim.openai.request_fields import (
    OpenAIRequestBody,
    image_part,
    invalid_field,
    unsupported_field,
)
from api_shim.openai.responses.response_tools import arguments_of, function_name
from api_shim.submission.ignored_fields import IgnoredField
from contract.chat import CalledName, CallId, Message, Part, Role, TextPart, ToolCall
from contract.requests import Word

_ID: Final = re.compile(r"^(?:msg|rs|fc|fco|ctc)_([0-9a-f]{32})_")
_ROLES: Final[Mapping[str, Role]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}
_UNDERSTOOD: Final = frozenset(
    {
        "message", "function_call", "function_call_output", "custom_tool_call",
        "custom_tool_call_output", "reasoning", "item_reference",
    }
)  # fmt: skip
_CALLS: Final = frozenset({"function_call", "custom_tool_call"})
_TEXTS: Final = frozenset({"input_text", "output_text", "text", "summary_text", "reasoning_text"})


class ItemPartBody(OpenAIRequestBody):
    """A part of an item's content."""

    type: Word
    """`input_text`, `output_text`, `refusal` or `input_image`; files and audio are refused."""
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None
    """http(s), or a data URL with base64."""
    detail: Annotated[Word | None, IgnoredField(unless=("auto",))] = None
    """The backend decides."""


def _of_plain_texts(parts: Any) -> Any:
    return join_plain(parts, types=_TEXTS)


Content = str | list[ItemPartBody]
_Joined: Final = BeforeValidator(_of_plain_texts)


class ItemBody(OpenAIRequestBody):
    """An item of the conversation."""

    type: Word = "message"
    """`message`, `function_call`, `function_call_output`, `custom_tool_call` and its output,
    `reasoning` or `item_reference`; items of tools that run at OpenAI are passed over."""
    id: Word | None = None
    """The id of the referenced item; of an item with content, only its name."""
    status: Annotated[Word | None, IgnoredField(unless=("completed",))] = None
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: Annotated[Content | None, _Joined] = None
    call_id: CallId | None = None
    name: CalledName | None = None
    namespace: CalledName | None = None
    """Of a call: that of its tool."""
    arguments: str | dict[str, Any] | None = None
    input: str | None = None
    """The text of a call of a custom tool."""
    output: Annotated[
        Content | dict[str, Any] | list[Any] | None, Field(union_mode="left_to_right"), _Joined
    ] = None
    """Of a tool that runs at OpenAI it may be anything."""
    summary: Annotated[list[ItemPartBody] | None, _Joined] = None
    extra_content: dict[str, Any] | None = None
    """Opaque data that the backend needs back with the item (Gemini's thought signature)."""

    @property
    @override
    def unused_fields(self) -> tuple[str, ...]:
        """A namespace belongs to a call, not to its output."""
        return () if self.type in _CALLS else ("namespace",)


class ItemMessage(NamedTuple):
    """One item as a message of its own; `merge_messages` joins them."""

    id: str
    message: Message


class EarlierResponses(NamedTuple):
    """What a request takes from earlier responses."""

    past: tuple[Message, ...] = ()
    """The conversation up to the previous response's output."""
    chain: tuple[str, ...] = ()
    """Ids of the jobs of that conversation, oldest first."""
    item_messages: Mapping[str, Message] = {}
    """Messages of referenced items, by item id."""


def job_of(item_id: str) -> str | None:
    """The job whose item this is; None if the id is not one of ours."""
    found = _ID.match(item_id)
    return found.group(1) if found else None


def to_messages(items: list[ItemBody], earlier: EarlierResponses) -> tuple[Message, ...]:
    """The messages of these items; the list is emptied.

    Raises Refusal for items that no backend accepts.
    """
    item_messages = [
        item_message
        for at, item in enumerate(taken(items))
        if (item_message := _piece(f"input.{at}", item, earlier)) is not None
    ]
    return merge_messages(item_messages, earlier.past)


def merge_messages(
    item_messages: Iterable[Message], past: Sequence[Message] = ()
) -> tuple[Message, ...]:
    """Messages with consecutive reasoning, text and calls of the assistant merged into one."""
    turns: list[Message] = []
    tools = {call.id: call.name for message in past for call in message.tool_calls}
    for item_message in item_messages:
        tools |= {call.id: call.name for call in item_message.tool_calls}
        if turns and _belong_together(turns[-1], item_message):
            turns[-1] = _both(turns[-1], item_message)
        elif item_message.role == "tool" and not item_message.tool_name:
            # Some servers match results by the tool's name, not by the call's id.
            turns.append(
                item_message.model_copy(update={"tool_name": tools.get(item_message.tool_call_id)})
            )
        else:
            turns.append(item_message)
    return tuple(turns)


def _belong_together(turn: Message, item_message: Message) -> bool:
    """Calls must directly precede their results, so they are in the last message before them."""
    if not turn.role == item_message.role == "assistant":
        return False
    return bool(turn.tool_calls) or not (
        turn.content and (item_message.content or item_message.thinking)
    )


def _both(turn: Message, item_message: Message) -> Message:
    return turn.model_copy(
        update={
            "content": turn.text + item_message.text,
            "thinking": (turn.thinking or "") + (item_message.thinking or "") or None,
            "tool_calls": (*turn.tool_calls, *item_message.tool_calls),
            "provider_meta": item_message.provider_meta or turn.provider_meta,
        }
    )


def _piece(field: str, item: ItemBody, earlier: EarlierResponses) -> Message | None:
    match item.type:
        case "message":
            return _message(field, item)
        case kind if kind in _CALLS:
            return _call(field, item)
        case "function_call_output" | "custom_tool_call_output":
            return _output(field, item)
        case "reasoning":
            parts = item.content or item.summary or []
            text = parts if isinstance(parts, str) else "".join(part.text or "" for part in parts)
            return Message(role="assistant", thinking=text) if text else None
        case "item_reference":
            return _referred(field, item, earlier)
        case _:
            return None


def passed_over(items: Iterable[ItemBody]) -> tuple[str, ...]:
    """Names of the items that say nothing to a backend, for X-Fleet-Ignored."""
    return tuple(
        dict.fromkeys(f"input[{item.type}]" for item in items if item.type not in _UNDERSTOOD)
    )


def _message(field: str, item: ItemBody) -> Message:
    if item.role is None:
        raise invalid_field(f"{field}.role", "required: user, assistant, system or developer")
    content = _content(f"{field}.content", item.content)
    if item.role == "assistant" and not isinstance(content, str):
        raise invalid_field(f"{field}.content", "only text is supported in an assistant's message")
    return Message(role=_ROLES[item.role], content=content, provider_meta=item.extra_content)


def _call(field: str, item: ItemBody) -> Message:
    if not item.name or not item.call_id:
        raise invalid_field(field, "name and call_id are required")
    is_object = isinstance(item.arguments, dict)
    text = json_text(item, "arguments") if is_object else item.arguments
    if item.type == "custom_tool_call":
        text = arguments_of(item.input or "")
    call = ToolCall(
        id=item.call_id,
        name=function_name(item.name, item.namespace),
        arguments=text or "{}",
        provider_meta=item.extra_content,
    )
    return Message(role="assistant", tool_calls=(call,))


def _output(field: str, item: ItemBody) -> Message:
    if not item.call_id:
        raise invalid_field(f"{field}.call_id", "required: the call whose result this is")
    content = _content(f"{field}.output", item.output)
    return Message(role="tool", content=content, tool_call_id=item.call_id, tool_name=item.name)


def _referred(field: str, item: ItemBody, earlier: EarlierResponses) -> Message | None:
    found = earlier.item_messages.get(item.id or "")
    if found is None and job_of(item.id or "") not in earlier.chain:
        raise invalid_field(f"{field}.id", "no stored response has an item with this id")
    # Items of the chain are in the conversation already; clients reference them too (vercel/ai
    # #15492).
    return found


def _content(
    field: str, content: Content | dict[str, Any] | list[Any] | None
) -> str | tuple[Part, ...]:
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, dict) or not all(isinstance(part, ItemPartBody) for part in content):
        raise invalid_field(field, "must be a text or a list of parts with a type")
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
            return image_part(f"{field}.image_url", part.image_url)
        case "input_image":
            raise unsupported_field(
                field, "file_id is not supported: send the image as image_url (https or data)"
            )
        case other:
            raise unsupported_field(
                f"{field}.type",
                f"parts of type {other[:40]!r} are not supported: use input_text or input_image",
            )


def input_items(
    job_id: str, messages: Sequence[Message]
) -> Iterator[tuple[ItemMessage, dict[str, Any]]]:
    """The input items of a job: each as a message, and as the JSON of a list of items."""
    number = 0
    for message in messages:
        for prefix, item_message, fields in _items(message):
            id = f"{prefix}_{job_id}_in{number}"
            number += 1
            yield ItemMessage(id, item_message), {"id": id, "status": "completed", **fields}


def _items(message: Message) -> Iterator[tuple[str, Message, dict[str, Any]]]:
    if message.thinking:
        content_fields = {
            "summary": [],
            "content": [{"type": "reasoning_text", "text": message.thinking}],
        }
        yield "rs", Message(role="assistant", thinking=message.thinking), reasoning(content_fields)
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
        item_message = Message(role="assistant", tool_calls=(call,))
        yield "fc", item_message, {"type": "function_call", **fields, **extra(call.provider_meta)}


def reasoning(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A reasoning item."""
    return {"type": "reasoning", **fields, "encrypted_content": None}


def extra(meta: dict[str, Any] | None) -> dict[str, Any]:
    """Opaque data of the backend, as a field of an item."""
    return {"extra_content": meta} if meta else {}


def _parts(message: Message) -> list[dict[str, Any]]:
    if message.role == "assistant":
        return [{"type": "output_text", "text": message.text, "annotations": [], "logprobs": []}]
    if isinstance(message.content, str):
        return [{"type": "input_text", "text": message.content}]
    return [_part_fields(part) for part in message.content]


def _part_fields(part: Part) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "input_text", "text": part.text}
    return {"type": "input_image", "image_url": part.image, "detail": "auto"}
