"""The items that an answer consists of, put together fragment by fragment, and the events of it.

Pure, and a function of the fragments alone: every shim makes the same items and events of a log.
Thoughts, words and calls are items of their own, in the order in which they begin. A new item ends
the one before it, but calls stay open until the end, because fragments of several may be mixed.
Source: openai/openai-openapi, ResponseStreamEvent and OutputItem.
"""

from collections.abc import Mapping
from typing import Any, Final, Protocol

from api_shim.openai.chat_response import unique
from api_shim.openai.responses.items import Piece
from api_shim.openai.responses.output_m_responses_said import Call, Event, State, Thoughts, Words

_ADDED: Final = "response.output_item.added"
_DONE: Final = "response.output_item.done"


class _Item(Protocol):
    @property
    def piece(self) -> Piece: ...

    def value(self, state: State) -> dict[str, Any]: ...

    def close(self, state: State) -> list[Event]: ...


class Output:
    """Everything that was said so far; each method returns what it adds to a stream."""

    def __init__(self, job_id: str, *, as_summary: bool = False) -> None:
        """Nothing said; `as_summary` tells thoughts where summaries of them stand."""
        self._job_id = job_id
        self._as_summary = as_summary
        self._items: list[_Item] = []
        self._closed: dict[int, State] = {}
        self._open: Thoughts | Words | None = None
        self._calls: dict[int, Call] = {}
        self._meta: dict[str, Any] | None = None

    def __bool__(self) -> bool:
        """Whether anything was said."""
        return bool(self._items)

    def add(self, delta: Mapping[str, Any]) -> list[Event]:
        """Take the fields of a `delta` event."""
        events: list[Event] = []
        if thinking := delta.get("thinking"):
            events += self._thoughts(events).say(thinking)
        if content := delta.get("content"):
            events += self._words(events).say("output_text", content, delta.get("logprobs") or ())
        if refusal := delta.get("refusal"):
            events += self._words(events).say("refusal", refusal, ())
        for fragment in delta.get("tool_calls") or ():
            events += self._fragment(fragment)
        if (meta := delta.get("provider_meta")) is not None:
            self._meta = meta
            if isinstance(self._open, Words):
                self._open.provider_meta = meta
        return events

    def close(self, state: State = "completed") -> list[Event]:
        """End what is open: in order, or because there were too many words."""
        if not self._items and state == "completed":
            events: list[Event] = []
            self._words(events)
            return events + self._close(0, state)
        return [
            event
            for at in range(len(self._items))
            if at not in self._closed
            for event in self._close(at, state)
        ]

    def values(self, state: State) -> list[dict[str, Any]]:
        """Every item; `state` is that of those which are open."""
        return [item.value(self._closed.get(at, state)) for at, item in enumerate(self._items)]

    @property
    def pieces(self) -> list[Piece]:
        """Every item as the message that it is for a later request."""
        return [item.piece for item in self._items]

    def _close(self, at: int, state: State) -> list[Event]:
        self._closed[at] = state
        item = self._items[at]
        return [*item.close(state), {"type": _DONE, "output_index": at, "item": item.value(state)}]

    def _begin(self, item: _Item, events: list[Event]) -> None:
        """Another item, which ends the one that is open."""
        if self._open is not None:
            events += self._close(self._open.at, "completed")
            self._open = None
        at = len(self._items)
        self._items.append(item)
        events.append({"type": _ADDED, "output_index": at, "item": item.value("in_progress")})

    def _id(self, prefix: str) -> str:
        return f"{prefix}_{self._job_id}_{len(self._items)}"

    def _thoughts(self, events: list[Event]) -> Thoughts:
        if not isinstance(self._open, Thoughts):
            item = Thoughts(self._id("rs"), len(self._items), as_summary=self._as_summary)
            self._begin(item, events)
            self._open = item
        return self._open

    def _words(self, events: list[Event]) -> Words:
        if not isinstance(self._open, Words):
            item = Words(self._id("msg"), len(self._items), self._meta)
            self._begin(item, events)
            self._open = item
        return self._open

    def _fragment(self, fragment: Mapping[str, Any]) -> list[Event]:
        events: list[Event] = []
        index = fragment["index"]
        call = self._calls.get(index)
        if call is None:
            call_id = unique(fragment.get("id"), self._job_id, index)
            call = Call(self._id("fc"), len(self._items), call_id, fragment.get("name") or "")
            self._calls[index] = call
            self._begin(call, events)
        return events + call.say(fragment)
