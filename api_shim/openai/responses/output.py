"""The output items of a response, built from deltas, and the stream events that each delta adds.

Pure, and a function of the deltas alone: every shim makes the same items and events of a log.
Reasoning, messages and function calls are items of their own, in the order in which they begin. A
new item closes the one before it. Calls stay open until the end, because their fragments may be
interleaved.
Source: openai/openai-openapi, ResponseStreamEvent and OutputItem.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Literal, Protocol

from api_shim.openai.logprob_fields import response_logprob
from api_shim.openai.responses.items import ItemMessage, extra, reasoning
from api_shim.openai.responses.response_tools import ClientTool, arguments_of, text_of
from contract.chat import Message, ToolCall
from contract.json_lines import EncodedList
from contract.result import unique_call_id

Event = dict[str, Any]
State = Literal["in_progress", "completed", "incomplete"]
Kind = Literal["output_text", "refusal"]
_OTHER_OUTPUT: Final = frozenset({"thinking", "refusal", "tool_calls"})
_MOST_WAITING: Final = 64
"""A character has four bytes at most, and a token one at least."""


def _whole(texts: list[str]) -> str:
    """The text of these fragments, which are one from then on: the events of an end share it."""
    if len(texts) > 1:
        texts[:] = ["".join(texts)]
    return texts[0] if texts else ""


class ReasoningItem:
    """The reasoning of the model."""

    def __init__(self, id: str, at: int, *, as_summary: bool) -> None:
        """An empty item at index `at` of the output; `as_summary` puts the text into `summary`."""
        self.id = id
        self.at = at
        self._texts: list[str] = []
        self._as_summary = as_summary
        part, text, index = _SUMMARY if as_summary else _RAW
        self._place = {"item_id": id, "output_index": at, index: 0}
        self._part_event, self._text_event = part, text

    def append(self, text: str) -> list[Event]:
        """Add a fragment; returns its events."""
        begun: list[Event] = []
        if not self._texts:
            begun.append(
                {"type": f"{self._part_event}.added", **self._place, "part": self._part("")}
            )
        self._texts.append(text)
        return [*begun, {"type": f"{self._text_event}.delta", **self._place, "delta": text}]

    def close(self, state: State) -> list[Event]:  # noqa: ARG002 - thoughts end in one way
        """The events that end the item."""
        text = _whole(self._texts)
        return [
            {"type": f"{self._text_event}.done", **self._place, "text": text},
            {"type": f"{self._part_event}.done", **self._place, "part": self._part(text)},
        ]

    def value(self, state: State) -> dict[str, Any]:
        """The item as JSON."""
        parts = [self._part(_whole(self._texts))] if self._texts else []
        fields = {"summary": parts} if self._as_summary else {"summary": [], "content": parts}
        return {"id": self.id, "status": state, **reasoning(fields)}

    def _part(self, text: str) -> dict[str, Any]:
        return {"type": "summary_text" if self._as_summary else "reasoning_text", "text": text}

    @property
    def item_message(self) -> ItemMessage:
        """The item as a message of a later request."""
        return ItemMessage(self.id, Message(role="assistant", thinking=_whole(self._texts)))


_RAW: Final = ("response.content_part", "response.reasoning_text", "content_index")
_SUMMARY: Final = (
    "response.reasoning_summary_part",
    "response.reasoning_summary_text",
    "summary_index",
)


class _Part:
    def __init__(self, kind: Kind) -> None:
        self.kind: Kind = kind
        self.texts: list[str] = []
        self.logprobs = EncodedList()

    @property
    def text(self) -> str:
        return _whole(self.texts)

    @property
    def value(self) -> dict[str, Any]:
        if self.kind == "refusal":
            return {"type": "refusal", "refusal": self.text}
        return {
            "type": "output_text",
            "text": self.text,
            "annotations": [],
            "logprobs": self.logprobs or [],
        }


class MessageItem:
    """Text of the model, or its refusal."""

    def __init__(self, id: str, at: int, provider_meta: dict[str, Any] | None = None) -> None:
        """An empty item; `provider_meta` may have arrived before the text."""
        self.id = id
        self.at = at
        self.provider_meta = provider_meta
        self._parts: list[_Part] = []

    def append(self, kind: Kind, text: str, logprobs: Sequence[Mapping[str, Any]]) -> list[Event]:
        """Add a fragment; returns its events."""
        events: list[Event] = []
        if not self._parts or self._parts[-1].kind != kind:
            events += self._end_of_part()
            self._parts.append(_Part(kind))
            part = self._parts[-1].value
            events.append({"type": "response.content_part.added", **self._place, "part": part})
        part_now, likely = self._parts[-1], [response_logprob(each) for each in logprobs]
        part_now.texts.append(text)
        part_now.logprobs.extend(likely)
        event = {"type": f"response.{kind}.delta", **self._place, "delta": text}
        if kind == "output_text":
            event["logprobs"] = likely
        return [*events, event]

    @property
    def has_text(self) -> bool:
        """Whether its last part is text, and no refusal."""
        return bool(self._parts) and self._parts[-1].kind == "output_text"

    @property
    def _place(self) -> dict[str, Any]:
        return {
            "item_id": self.id,
            "output_index": self.at,
            "content_index": len(self._parts) - 1,
        }

    def _end_of_part(self) -> list[Event]:
        if not self._parts:
            return []
        part = self._parts[-1]
        fields: dict[str, Any] = {"text": part.text, "logprobs": part.logprobs or []}
        if part.kind == "refusal":
            fields = {"refusal": part.text}
        return [
            {"type": f"response.{part.kind}.done", **self._place, **fields},
            {"type": "response.content_part.done", **self._place, "part": part.value},
        ]

    def close(self, state: State) -> list[Event]:  # noqa: ARG002 - words end in one way
        """The events that end the item."""
        return self._end_of_part()

    def value(self, state: State) -> dict[str, Any]:
        """The item as JSON."""
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "status": state,
            "content": [part.value for part in self._parts],
            **extra(self.provider_meta),
        }

    @property
    def item_message(self) -> ItemMessage:
        """The item as a message of a later request."""
        text = "".join(part.text for part in self._parts)
        meta = self.provider_meta
        return ItemMessage(self.id, Message(role="assistant", content=text, provider_meta=meta))


class FunctionCallItem:
    """A call of one of the client's functions."""

    def __init__(
        self, id: str, at: int, call_id: str, name: str, tool: ClientTool | None = None
    ) -> None:
        """A call without arguments yet; `tool` is the client's, if it is in a namespace."""
        self.id = id
        self._place = {"item_id": id, "output_index": at}
        self._call_id = call_id
        self._name = name
        self._tool = tool
        self._arguments: list[str] = []
        self._provider_meta: dict[str, Any] | None = None

    def append(self, fragment: Mapping[str, Any]) -> list[Event]:
        """Add a fragment; returns its events."""
        self._name = self._name or fragment.get("name") or ""
        self._provider_meta = fragment.get("provider_meta") or self._provider_meta
        text = fragment.get("arguments")
        if not text:
            return []
        self._arguments.append(text)
        return [{"type": "response.function_call_arguments.delta", **self._place, "delta": text}]

    def close(self, state: State) -> list[Event]:
        """The events that end the item."""
        fields = {"name": self._shown_name, "arguments": self._whole(state)}
        return [{"type": "response.function_call_arguments.done", **self._place, **fields}]

    def value(self, state: State) -> dict[str, Any]:
        """The item as JSON."""
        return {
            "id": self.id,
            "type": "function_call",
            "status": state,
            "call_id": self._call_id,
            "name": self._shown_name,
            "arguments": self._whole(state),
            **(self._tool.extra if self._tool else {}),
            **extra(self._provider_meta),
        }

    @property
    def _shown_name(self) -> str:
        return self._tool.name if self._tool else self._name

    def _whole(self, state: State) -> str:
        return "".join(self._arguments) or ("{}" if state == "completed" else "")

    @property
    def item_message(self) -> ItemMessage:
        """The item as a message of a later request."""
        call = ToolCall(
            id=self._call_id,
            name=self._name,
            arguments=self._whole("completed"),
            provider_meta=self._provider_meta,
        )
        return ItemMessage(self.id, Message(role="assistant", tool_calls=(call,)))


class CustomCallItem:
    """A call of a custom tool, whose text is known at its end: it is told as one fragment."""

    def __init__(self, id: str, at: int, call_id: str, function: str, tool: ClientTool) -> None:
        """A call without text yet; `function` is the name that the backend knows."""
        self.id = id
        self._place = {"item_id": id, "output_index": at}
        self._call_id = call_id
        self._function = function
        self._tool = tool
        self._arguments: list[str] = []

    def append(self, fragment: Mapping[str, Any]) -> list[Event]:
        """Add a fragment; it has no event of its own."""
        self._arguments.append(fragment.get("arguments") or "")
        return []

    def close(self, state: State) -> list[Event]:  # noqa: ARG002 - its text is what there is
        """The events that end the item."""
        kind = "response.custom_tool_call_input"
        text = text_of("".join(self._arguments))
        delta = {"type": f"{kind}.delta", **self._place, "delta": text}
        return [*([delta] if text else []), {"type": f"{kind}.done", **self._place, "input": text}]

    def value(self, state: State) -> dict[str, Any]:
        """The item as JSON."""
        return {
            "id": self.id,
            "type": "custom_tool_call",
            "status": state,
            "call_id": self._call_id,
            "name": self._tool.name,
            "input": text_of("".join(self._arguments)),
            **self._tool.extra,
        }

    @property
    def item_message(self) -> ItemMessage:
        """The item as a message of a later request."""
        text = arguments_of(text_of("".join(self._arguments)))
        call = ToolCall(id=self._call_id, name=self._function, arguments=text)
        return ItemMessage(self.id, Message(role="assistant", tool_calls=(call,)))


_ADDED: Final = "response.output_item.added"
_DONE: Final = "response.output_item.done"


class _Item(Protocol):
    @property
    def item_message(self) -> ItemMessage: ...

    def value(self, state: State) -> dict[str, Any]: ...

    def close(self, state: State) -> list[Event]: ...


class Output:
    """The output so far; methods that add to it return the events of the addition."""

    def __init__(
        self,
        job_id: str,
        *,
        as_summary: bool = False,
        tools: Mapping[str, ClientTool] = MappingProxyType({}),
    ) -> None:
        """Empty output; `as_summary` puts reasoning into `summary`.

        `tools`: the client's tools that are no plain functions, by the names of their functions.
        """
        self._job_id = job_id
        self._tools = tools
        self._as_summary = as_summary
        self._items: list[_Item] = []
        self._closed: dict[int, State] = {}
        self._open: ReasoningItem | MessageItem | None = None
        self._calls: dict[int, FunctionCallItem | CustomCallItem] = {}
        self._meta: dict[str, Any] | None = None
        self._waiting: tuple[Mapping[str, Any], ...] = ()
        """Log probabilities of the tokens before the first text."""

    def __len__(self) -> int:
        """How many items there are."""
        return len(self._items)

    def add(self, delta: Mapping[str, Any]) -> list[Event]:
        """Add the fields of a `delta` event."""
        events: list[Event] = []
        if thinking := delta.get("thinking"):
            events += self._reasoning(events).append(thinking)
        likely = delta.get("logprobs") or ()
        if content := delta.get("content"):
            likely, self._waiting = (*self._waiting, *likely), ()
            events += self._message(events).append("output_text", content, likely)
        elif likely and not delta.keys() & _OTHER_OUTPUT:
            events += self._append_logprobs(likely)
        if refusal := delta.get("refusal"):
            events += self._message(events).append("refusal", refusal, ())
        for fragment in delta.get("tool_calls") or ():
            events += self._append_call(fragment)
        if (meta := delta.get("provider_meta")) is not None:
            self._meta = meta
            if isinstance(self._open, MessageItem):
                self._open.provider_meta = meta
        return events

    def _append_logprobs(self, likely: Sequence[Mapping[str, Any]]) -> list[Event]:
        """Add those of tokens without a text of their own, as the parts of a character are."""
        if isinstance(self._open, MessageItem) and self._open.has_text:
            return self._open.append("output_text", "", likely)
        self._waiting = (*self._waiting, *likely)[-_MOST_WAITING:]
        return []

    def close(self, state: State = "completed") -> list[Event]:
        """Close the open items; `state` is `incomplete` if the output was cut off."""
        if not self._items and state == "completed":
            events: list[Event] = []
            self._message(events)
            return events + self._close(0, state)
        return [
            event
            for at in range(len(self._items))
            if at not in self._closed
            for event in self._close(at, state)
        ]

    def values(self, state: State) -> list[dict[str, Any]]:
        """Every item as JSON; `state` is that of open items."""
        return [item.value(self._closed.get(at, state)) for at, item in enumerate(self._items)]

    @property
    def item_messages(self) -> list[ItemMessage]:
        """Every item as a message of a later request."""
        return [item.item_message for item in self._items]

    def _close(self, at: int, state: State) -> list[Event]:
        self._closed[at] = state
        item = self._items[at]
        return [*item.close(state), {"type": _DONE, "output_index": at, "item": item.value(state)}]

    def _begin(self, item: _Item, events: list[Event]) -> None:
        """Begin another item, and close the open one."""
        if self._open is not None:
            events += self._close(self._open.at, "completed")
            self._open = None
        at = len(self._items)
        self._items.append(item)
        events.append({"type": _ADDED, "output_index": at, "item": item.value("in_progress")})

    def _id(self, prefix: str) -> str:
        return f"{prefix}_{self._job_id}_{len(self._items)}"

    def _reasoning(self, events: list[Event]) -> ReasoningItem:
        if not isinstance(self._open, ReasoningItem):
            item = ReasoningItem(self._id("rs"), len(self._items), as_summary=self._as_summary)
            self._begin(item, events)
            self._open = item
        return self._open

    def _message(self, events: list[Event]) -> MessageItem:
        if not isinstance(self._open, MessageItem):
            item = MessageItem(self._id("msg"), len(self._items), self._meta)
            self._begin(item, events)
            self._open = item
        return self._open

    def _append_call(self, fragment: Mapping[str, Any]) -> list[Event]:
        events: list[Event] = []
        index = fragment["index"]
        call = self._calls.get(index)
        if call is None:
            call_id = unique_call_id(fragment.get("id"), self._job_id, index)
            call = self._calls[index] = self._new_call(call_id, fragment.get("name") or "")
            self._begin(call, events)
        return events + call.append(fragment)

    def _new_call(self, call_id: str, name: str) -> FunctionCallItem | CustomCallItem:
        tool, at = self._tools.get(name), len(self._items)
        if tool is not None and tool.kind == "custom":
            return CustomCallItem(self._id("ctc"), at, call_id, name, tool)
        return FunctionCallItem(self._id("fc"), at, call_id, name, tool)
