"""A response as a stream: its job's log as OpenAI's events, numbered. Pure.

The numbers depend on the log alone, read from its beginning. Every shim gives an event the same
number, so `starting_after` works on all of them for as long as the log exists (LocalAI #10993: only
on the replica that has the stream; openai-python #2828: five minutes).

If an attempt starts over, text that was sent is invalid. The `reset` takes a number of its own, and
the events of the new attempt have the numbers after it. A client that has received old events gets
an error with that number; one that connects later receives the new events only. Source:
openai/openai-openapi, ResponseStreamEvent.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, Final

from pydantic_core import from_json

from api_shim.following.job_refusals import ANSWER_RESTARTED, RESTARTS
from api_shim.http.problems import Problem
from api_shim.openai.errors import encoded
from api_shim.openai.responses.output import Event, Output
from api_shim.openai.responses.response import ResponseEnding, ResponseFacts, Status, error, usage
from contract import sse
from contract.events import EventId, Failed, Frame, Usage
from contract.json_lines import json_line, one_line
from contract.wire import json_pieces

Numbered = tuple[int, Event]
_LAST: Final = frozenset({"response.completed", "response.failed", "response.incomplete"})
"""One of these ends every stream, with the whole response; clients fail without it."""

_LARGE_BYTES: Final = 2**18
_PIECE_BYTES: Final = 2**16


class ResponseBuilder:
    """Builds one response and its events from the frames of its job, in order from the first."""

    def __init__(self, facts: ResponseFacts) -> None:
        """No frame is added yet."""
        self._facts = facts
        self._reset()

    def _reset(self) -> None:
        self.next = 0
        """Number of the next event."""
        self.first = 0
        """Number of the first valid event: those before it belong to an attempt that was reset."""
        self.status: Status = "queued" if self._facts.in_background else "in_progress"
        self.output: Output = self._facts.output
        self._is_begun = self._has_started = self._has_refused = False
        self._ending: dict[str, Any] = {}
        self._spent: dict[str, Any] = {}

    @property
    def response(self) -> dict[str, Any]:
        """The response so far."""
        return self._facts.response(self.status, self.output, **self._ending)

    def add(self, frame: Frame) -> Iterator[Numbered]:
        """The numbered events that the next frame of the log adds."""
        for event in self._events(frame):
            event["sequence_number"] = self.next
            yield self.next, event
            self.next += 1

    def _events(self, frame: Frame) -> Iterator[Event]:
        match frame.type:
            case "delta":
                fields = frame.fields
                self._has_refused = self._has_refused or "refusal" in fields
                self._spent = fields.get("usage") or self._spent
                yield from self.output.add(fields)
            case "queued":
                yield from self._begun()
            case "started":
                self._facts.answered_by(frame)
                yield from self._started()
            case "done":
                yield from self._done(frame.fields)
            case "failed" | "cancelled":
                yield from self._ended(frame)
            case "reset":
                self.next += 1
                self.first, self.output = self.next, self._facts.output
                self._is_begun = self._has_started = self._has_refused = False
                self._spent = {}
                yield from self._started()
            case "log_reset":
                self._reset()
            case _:
                pass

    def _begun(self) -> Iterator[Event]:
        if self._is_begun:
            return
        self._is_begun = True
        yield self._lifecycle("response.created")
        if self.status == "queued":
            yield self._lifecycle("response.queued")

    def _started(self) -> Iterator[Event]:
        if self._has_started:
            return
        self._has_started, self.status = True, "in_progress"
        yield from self._begun()
        yield self._lifecycle("response.in_progress")

    def _done(self, fields: dict[str, Any]) -> Iterator[Event]:
        ending = ResponseEnding(fields.get("finish_reason"), has_refused=self._has_refused)
        yield from self.output.close(ending.status)
        used = Usage.model_validate(counts) if (counts := fields.get("usage")) else None
        self.status, self._ending = ending.status, ending.fields(used, fields["at"])
        yield self._lifecycle(f"response.{self.status}")

    def _ended(self, frame: Frame) -> Iterator[Event]:
        yield from self._begun()
        end = frame.event
        spent = {"usage": usage(Usage.model_validate(self._spent))} if self._spent else {}
        if isinstance(end, Failed):
            self.status, self._ending = "failed", {"error": error(end), **spent}
            yield self._lifecycle("response.failed")
        else:  # clients have no event of its own for it: the response's status says so
            self.status, self._ending = "cancelled", spent
            yield self._lifecycle("response.incomplete")

    def _lifecycle(self, type: str) -> Event:
        return {"type": type, "response": self.response}


class ResponseEvents:
    """Renders a response as a stream of events, from any number on."""

    media_type = sse.MEDIA_TYPE
    keep_alive = sse.KEEP_ALIVE

    def __init__(
        self, facts: ResponseFacts, *, after: int | None = None, known_reset: EventId | None = None
    ) -> None:
        """Send the events after number `after`; None sends all that are valid.

        The last one is always sent, also to a client that has it, or names a later number.

        `known_reset`: id of the last reset in the log that the client already knows of.
        """
        self._builder = ResponseBuilder(facts)
        self._after = -1 if after is None else after
        self._has_sent = after is not None
        self._known_reset = known_reset
        self._size_bytes = 0
        """Of the frames so far."""

    def split_frames(self, frames: list[Frame]) -> tuple[Sequence[Frame], Frame | None]:
        """The frames that can be rendered, and the reset that ends the stream, if any."""
        for at, frame in enumerate(frames):
            if frame.type in RESTARTS and self._has_sent and not self._is_known(frame):
                return frames[:at], frame
        return frames, None

    def _is_known(self, frame: Frame) -> bool:
        earlier = self._known_reset
        return earlier is not None and frame.id is not None and frame.id <= earlier

    def render(self, frames: Sequence[Frame]) -> bytes:
        """The events for these frames."""
        encoded_events: list[bytes] = []
        for frame in frames:
            if frame.type in RESTARTS:
                encoded_events.clear()
            encoded_events += map(_encode, self._wanted(frame))
        self._has_sent = self._has_sent or bool(encoded_events)
        return b"".join(encoded_events)

    def pieces(self, frames: Sequence[Frame]) -> Iterator[bytes]:
        """The same in pieces of two megabytes at most, and small events together."""
        restarts = [at for at, frame in enumerate(frames, 1) if frame.type in RESTARTS]
        begin = restarts[-1] if restarts else 0
        held = self.render(frames[:begin])
        for event in chain.from_iterable(map(self._wanted, frames[begin:])):
            self._has_sent = True
            for data in _encoded_pieces(event):
                held += data
                if len(held) > _PIECE_BYTES:
                    yield held
                    held = b""
        if held:
            yield held

    def is_large(self, frames: Sequence[Frame]) -> bool:
        """Whether events of these frames, the last with all text, keep other streams waiting."""
        return self._size_bytes + sum(len(frame.body) for frame in frames) > _LARGE_BYTES

    def _wanted(self, frame: Frame) -> Iterator[Event]:
        """The events of a frame that the client has not."""
        self._size_bytes += len(frame.body)
        for number, event in self._builder.add(frame):
            is_wanted = number > self._after or event["type"] in _LAST
            if is_wanted and not self._is_superseded(frame):
                yield event

    def _is_superseded(self, frame: Frame) -> bool:
        earlier = self._known_reset
        return earlier is not None and frame.id is not None and frame.id < earlier

    def render_error(self, problem: Problem) -> bytes:
        """An error, at which clients raise.

        Its number is that of the reset; for an error that is not in the log, that of the last event
        sent, so that a client which reconnects misses nothing.
        """
        is_in_log = problem.code == ANSWER_RESTARTED
        number = self._builder.next if is_in_log else max(self._builder.next - 1, self._after)
        return failure(problem, number)


def failure(problem: Problem, number: int) -> bytes:
    """An error as an event.

    It has the fields twice: flat, as documented, and nested, as OpenAI sends them (openai-dotnet
    #881).
    """
    fault = from_json(encoded(problem))["error"]
    event = {"type": "error", "sequence_number": max(number, 0), **_flat(fault), "error": fault}
    return _encode(event)


def _encode(event: Event) -> bytes:
    return sse.encode(json_line(event), name=event["type"].encode())


def _encoded_pieces(event: Event) -> Iterator[bytes]:
    """The same in pieces, where an event has the text of others again."""
    if event["type"].endswith(".delta"):
        yield _encode(event)
        return
    before, after = sse.encode(b"{}", name=event["type"].encode()).split(b"{}")
    yield before
    yield from map(one_line, json_pieces(event))
    yield after


def _flat(fault: dict[str, Any]) -> dict[str, Any]:
    return {name: fault[name] for name in ("code", "message", "param")}
