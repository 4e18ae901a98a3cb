"""A response as a message, and as a stream of Anthropic's events with the job's cursor. Pure.

The last event of each of the log's has its id (`id: <attempt>-<seq>`), so a client that was cut off
continues after it (`Last-Event-ID`), on any shim. `message_start` is sent once, at the latest with
the first `ping`: a client that waits sees that the request was accepted, and a comment before each
ping has the job's position.

If an attempt starts over, text that was sent cannot be taken back: the stream ends with an error.
A client that has received no block of the old attempt gets the new one only.
Source: anthropics/anthropic-sdk-python, RawMessageStreamEvent and Message.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, Self

from pydantic_core import from_json

from api_shim.anthropic.answer_blocks import AnswerBlocks
from api_shim.anthropic.block_kinds import StreamEvent
from api_shim.anthropic.errors import error_event
from api_shim.following.job_refusals import FAILURES, RESTARTS
from api_shim.http.problems import Problem
from contract import sse
from contract.chat import ChatRequest, MessageNotes
from contract.events import Delta, Done, EventId, Frame, ToolCallDelta, Usage
from contract.jobs import JobRecord
from contract.json_lines import json_line
from contract.requests import Priority
from contract.result import Result

MESSAGE_ID: Final = "msg_"
"""Begins the id of a message; the job's id follows."""
_TIERS: Final[Mapping[Priority, str]] = {
    "interactive": "priority",
    "standard": "standard",
    "batch": "batch",
}
_REASONS: Final[Mapping[str, str]] = {
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
_PING: Final = sse.encode(b'{"type":"ping"}', b"ping")
_PLACE: Final = ("position", "eta_s", "reason")


class MessageFacts(NamedTuple):
    """The job that a message belongs to, and what of its request the message depends on."""

    job_id: str
    model: str
    priority: Priority
    notes: MessageNotes
    stops: tuple[str, ...] = ()
    """The request's stop sequences."""
    is_alias: bool = False
    """Whether the client has named an alias, so that the job may move to another model."""

    @classmethod
    def of(cls, record: JobRecord, request: ChatRequest) -> Self:
        """From a job's record and request."""
        notes = request.message_notes or MessageNotes()
        model, is_alias = record.model or "", record.alias is not None
        return cls(record.id, model, record.priority, notes, request.stop, is_alias)


class MessageBuilder:
    """Builds one message and its events from the frames of its job, in order from the first."""

    def __init__(self, facts: MessageFacts) -> None:
        """No frame is added yet."""
        self._facts = facts
        self._reset()

    def _reset(self) -> None:
        self.blocks = AnswerBlocks(
            self._facts.job_id, omits_thinking=self._facts.notes.omits_thinking
        )
        self._ending: dict[str, Any] = {}
        self._used: Usage | None = None
        self._refusal: list[str] = []

    @property
    def message(self) -> dict[str, Any]:
        """The message so far; its `stop_reason` is null before the end."""
        return self._message(self.blocks.values, self._ending, self._used)

    @property
    def start(self) -> StreamEvent:
        """The event that begins a stream; the prompt's tokens follow in `message_delta`."""
        return {"type": "message_start", "message": self._message([], {}, None)}

    def add(self, frame: Frame) -> list[StreamEvent]:
        """The events that the next frame of the log adds, without `message_start`."""
        match frame.type:
            case "delta":
                return self._delta(frame.fields)
            case "done":
                return self._done(frame.fields)
            case "reset" | "log_reset":
                self._reset()
                return []
            case "started" if self._facts.is_alias:
                model = from_json(frame.body).get("model") or self._facts.model
                self._facts = self._facts._replace(model=model)
                return []
            case _:
                return []

    def _delta(self, fields: Mapping[str, Any]) -> list[StreamEvent]:
        if used := fields.get("usage"):
            self._used = Usage.model_validate(used)
        if refusal := fields.get("refusal"):
            self._refusal.append(refusal)
        return [] if self._facts.notes.only_reads else self.blocks.add(fields)

    def _done(self, fields: Mapping[str, Any]) -> list[StreamEvent]:
        used = fields.get("usage")
        self._used = Usage.model_validate(used) if used else None
        events = self.blocks.close()
        self._ending = self._end(fields.get("finish_reason") or "stop", fields)
        usage = _counts(self._used, is_empty=self._facts.notes.only_reads)
        delta = {"type": "message_delta", "delta": self._ending, "usage": usage}
        return [*events, delta, {"type": "message_stop"}]

    def _end(self, finish: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        stop_sequence = fields.get("stop_sequence") or self._stop_in_the_text(finish)
        reason = _REASONS.get(finish, "stop_sequence" if stop_sequence else "end_turn")
        if self._facts.notes.only_reads:
            reason, stop_sequence = "max_tokens", None
        elif self._refusal:
            reason = "refusal"
        elif finish == "stop" and self.blocks.has_calls:
            reason = "tool_use"
        why = {"type": "refusal", "category": None, "explanation": "".join(self._refusal) or None}
        return {
            "stop_reason": reason,
            "stop_sequence": stop_sequence if reason == "stop_sequence" else None,
            "stop_details": why if reason == "refusal" else None,
        }

    def _stop_in_the_text(self, finish: str) -> str | None:
        """The stop sequence with which the text ends: some servers leave it there.

        Where servers remove it and do not name it, whether one was met cannot be known.
        """
        if finish != "stop" or not self._facts.stops:
            return None
        text = self.blocks.last_text
        return next((stop for stop in self._facts.stops if text.endswith(stop)), None)

    def _message(
        self, content: Sequence[Mapping[str, Any]], ending: Mapping[str, Any], used: Usage | None
    ) -> dict[str, Any]:
        counts = _counts(used, is_empty=self._facts.notes.only_reads)
        return {
            "id": MESSAGE_ID + self._facts.job_id,
            "type": "message",
            "role": "assistant",
            "model": self._facts.model,
            "content": content,
            "stop_reason": None,
            "stop_sequence": None,
            "stop_details": None,
            **ending,
            "usage": {**counts, "service_tier": _TIERS[self._facts.priority]},
        }


def whole_message(facts: MessageFacts, result: Result) -> dict[str, Any]:
    """The message of a job that is done."""
    calls = tuple(
        ToolCallDelta(index=at, **call.model_dump()) for at, call in enumerate(result.tool_calls)
    )
    delta = Delta(
        thinking=result.thinking or None,
        content=result.content or None,
        refusal=result.refusal or None,
        tool_calls=calls or None,
        provider_meta=result.provider_meta,
    )
    done = Done(
        finish_reason=result.finish_reason or "stop",
        stop_sequence=result.stop_sequence,
        usage=result.usage,
    )
    builder = MessageBuilder(facts)
    for event in (delta, done):
        builder.add(Frame.of(None, 0.0, event))
    return builder.message


def _counts(used: Usage | None, *, is_empty: bool) -> dict[str, Any]:
    """Token counts; the prompt's are those that were not read from a cache."""
    spent = used or Usage()
    return {
        "input_tokens": max(0, spent.prompt_tokens - spent.cached_tokens),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": spent.cached_tokens,
        "output_tokens": 0 if is_empty else spent.completion_tokens,
        "output_tokens_details": {"thinking_tokens": spent.reasoning_tokens},
    }


class MessageEvents:
    """Renders a message as a stream of events, from any cursor on."""

    media_type = sse.MEDIA_TYPE

    def __init__(
        self,
        facts: MessageFacts,
        *,
        after: EventId | None = None,
        last_reset: EventId | None = None,
    ) -> None:
        """Send the events after `after`; None sends all that are valid.

        `last_reset`: id of the last reset in the log, if the client has no block of before it.
        """
        self._builder = MessageBuilder(facts)
        self._after = after
        self._last_reset = last_reset
        self._has_begun = False
        self._has_blocks = False
        """Whether the client has received a block that a reset would invalidate."""
        self._place = b""

    @property
    def keep_alive(self) -> bytes:
        """A ping, after the job's position while it waits, and `message_start` if that is due."""
        return self._begin() + self._place + _PING

    def split_frames(self, frames: list[Frame]) -> tuple[Sequence[Frame], Frame | None]:
        """The frames that can be rendered, and the one that ends the stream, if any."""
        for at, frame in enumerate(frames):
            if frame.type in RESTARTS:
                if self._has_blocks and not self._is_superseded(frame):
                    return frames[:at], frame
            elif frame.type in FAILURES:
                return frames[:at], frame
        return frames, None

    def render(self, frames: Sequence[Frame]) -> bytes:
        """The events for these frames."""
        pieces: list[bytes] = []
        for frame in frames:
            if frame.type in RESTARTS:
                pieces.clear()
            elif frame.type == "queued":
                self._place = _place(frame)
            else:
                self._place = b""
            events = self._builder.add(frame)
            if events and not self._is_superseded(frame):
                pieces.append(self._sent(frame, events))
        data = b"".join(pieces)
        self._has_blocks = self._has_blocks or bool(data)
        return self._begin() + data if data else b""

    def _sent(self, frame: Frame, events: Sequence[StreamEvent]) -> bytes:
        """The events' bytes; empty if the client has received them already."""
        if self._after is not None and frame.id is not None and frame.id <= self._after:
            self._has_begun = self._has_blocks = True
            return b""
        id = str(frame.id).encode() if frame.id is not None else b""
        *first, last = events
        return b"".join([*(_encode(event) for event in first), _encode(last, id)])

    def _is_superseded(self, frame: Frame) -> bool:
        earlier = self._last_reset
        return earlier is not None and frame.id is not None and frame.id <= earlier

    def _begin(self) -> bytes:
        if self._has_begun:
            return b""
        self._has_begun = True
        return _encode(self._builder.start)

    def render_error(self, problem: Problem) -> bytes:
        """The error that ends the stream."""
        return error_event(problem)


def _place(frame: Frame) -> bytes:
    fields = from_json(frame.body)
    return b": queued " + json_line({name: fields.get(name) for name in _PLACE}) + b"\n"


def _encode(event: StreamEvent, id: bytes = b"") -> bytes:
    return sse.encode(json_line(event), event["type"].encode(), id)
