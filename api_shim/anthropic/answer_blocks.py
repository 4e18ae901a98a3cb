"""The content blocks of a response, built from deltas, and the stream events of each addition.

Pure, and a function of the deltas alone: every shim makes the same blocks and events of a log.
Blocks follow one another: each is started and stopped once, and only the last one is open. But
fragments of several tool calls may be interleaved; what belongs to another block than an unfinished
call is held until that call's arguments are whole, so that none are lost.
Source: anthropics/anthropic-sdk-python, RawMessageStreamEvent and ContentBlock.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from api_shim.anthropic.block_kinds import (
    AnswerBlock,
    CallAnswer,
    SealedAnswer,
    StreamEvent,
    TextAnswer,
    ThinkingAnswer,
)
from contract.json_texts.arguments import ScanRoom, demand_small
from contract.json_texts.json_scan import TooMuch
from contract.result import unique_call_id


class _Piece(NamedTuple):
    kind: Literal["thinking", "text", "call"]
    text: str
    number: int = -1
    """Of a call in the log."""
    fragment: Mapping[str, Any] = {}


class _Held:
    """Pieces that wait for an unfinished call, by the block that they will be in."""

    def __init__(self) -> None:
        # A plain dict looks for its first key behind all that were taken from there.
        self._blocks: OrderedDict[object, list[_Piece]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._blocks)

    def add(self, piece: _Piece) -> None:
        """Add a piece: to its call, or to the last block if that is of the same kind."""
        key: object = piece.number
        if piece.kind != "call":
            last = next(reversed(self._blocks), None)
            is_same = last is not None and self._blocks[last][0].kind == piece.kind
            key = last if is_same else object()
        self._blocks.setdefault(key, []).append(piece)

    def next_block(self) -> list[_Piece]:
        """The pieces of the first block, which are held no more; none if nothing is held."""
        return self._blocks.popitem(last=False)[1] if self._blocks else []


class AnswerBlocks:
    """The blocks so far; methods that add to them return the events of the addition."""

    def __init__(self, job_id: str, *, omits_thinking: bool = False) -> None:
        """No block yet."""
        self._job_id = job_id
        self._omits_thinking = omits_thinking
        self._blocks: list[AnswerBlock] = []
        self._open: AnswerBlock | None = None
        self._calls: dict[int, CallAnswer] = {}
        self._scan_room = ScanRoom()
        self._held = _Held()
        self._meta: dict[str, Any] | None = None
        self._sealed_meta: dict[str, Any] | None = None

    def __bool__(self) -> bool:
        """Whether there is any block."""
        return bool(self._blocks)

    @property
    def has_calls(self) -> bool:
        """Whether a tool is called."""
        return bool(self._calls)

    @property
    def values(self) -> list[dict[str, Any]]:
        """Every block as JSON."""
        calls = list(self._calls.values())
        try:
            demand_small([call.arguments for call in calls])
        except TooMuch:
            for call in calls:
                call.is_too_much = True
        return [block.value for block in self._blocks]

    @property
    def last_text(self) -> str:
        """The text of the last block; empty if it is of another kind."""
        last = self._blocks[-1] if self._blocks else None
        return str(last.value["text"]) if isinstance(last, TextAnswer) else ""

    def add(self, delta: Mapping[str, Any]) -> list[StreamEvent]:
        """Add the fields of a `delta` event."""
        if (meta := delta.get("provider_meta")) is not None:
            self._meta = meta
        events: list[StreamEvent] = []
        for piece in _pieces(delta):
            events += self._add(piece)
        return events

    def close(self) -> list[StreamEvent]:
        """Close the open block and add what was held."""
        events = self._close_open()
        while pieces := self._held.next_block():
            for piece in pieces:
                events += self._put(piece)
            events += self._close_open()
        if self._meta and self._meta != self._sealed_meta:
            events += self._seal({"message": self._meta})
        return events

    def _add(self, piece: _Piece) -> list[StreamEvent]:
        call = self._calls.get(piece.number)
        if self._is_held_back(call):
            self._held.add(piece)
            return []
        events = self._put(piece)
        while self._held and not self._is_held_back(None):
            for each in self._held.next_block():
                events += self._put(each)
        return events

    def _put(self, piece: _Piece) -> list[StreamEvent]:
        match piece.kind:
            case "call":
                return self._put_call(piece, self._calls.get(piece.number))
            case "text":
                return self._add_to(TextAnswer(), piece.text)
            case "thinking":
                return self._add_to(ThinkingAnswer(is_omitted=self._omits_thinking), piece.text)

    def _is_held_back(self, call: CallAnswer | None) -> bool:
        """Whether a piece of `call` (None: of another block) must wait for the open call."""
        open_call = self._open if isinstance(self._open, CallAnswer) else None
        return open_call is not None and call is not open_call and not open_call.is_whole

    def _add_to(self, new: TextAnswer | ThinkingAnswer, text: str) -> list[StreamEvent]:
        events: list[StreamEvent] = []
        if isinstance(self._open, TextAnswer | ThinkingAnswer) and type(self._open) is type(new):
            new = self._open
        else:
            events += self._begin(new)
        return [*events, *new.append(len(self._blocks) - 1, text)]

    def _put_call(self, piece: _Piece, call: CallAnswer | None) -> list[StreamEvent]:
        events: list[StreamEvent] = []
        if call is None:
            id = unique_call_id(piece.fragment.get("id"), self._job_id, piece.number)
            if meta := piece.fragment.get("provider_meta"):
                events += self._seal({"calls": {id: meta}})
            call = self._calls[piece.number] = CallAnswer(
                id, piece.fragment.get("name") or "", self._scan_room
            )
            events += self._begin(call)
        if piece.text and call is self._open:
            events += call.append(len(self._blocks) - 1, piece.text)
        return events

    def _seal(self, facts: Mapping[str, Any]) -> list[StreamEvent]:
        return [*self._begin(SealedAnswer(facts)), *self._close_open()]

    def _begin(self, block: AnswerBlock) -> list[StreamEvent]:
        events = self._close_open()
        self._blocks.append(block)
        self._open = block
        return [*events, block.start(len(self._blocks) - 1)]

    def _close_open(self) -> list[StreamEvent]:
        block, index = self._open, len(self._blocks) - 1
        if block is None:
            return []
        if isinstance(block, ThinkingAnswer) and self._meta:
            block.facts, self._sealed_meta = {"message": self._meta}, self._meta
        self._open = None
        return [*block.close(index), {"type": "content_block_stop", "index": index}]


def _pieces(delta: Mapping[str, Any]) -> Sequence[_Piece]:
    pieces: list[_Piece] = []
    if thinking := delta.get("thinking"):
        pieces.append(_Piece("thinking", thinking))
    pieces += [_Piece("text", text) for name in ("content", "refusal") if (text := delta.get(name))]
    pieces += [
        _Piece("call", fragment.get("arguments") or "", fragment["index"], fragment)
        for fragment in delta.get("tool_calls") or ()
    ]
    return pieces
