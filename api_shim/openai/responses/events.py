"""A response as a stream: the events of its job's log in OpenAI's words, numbered. Pure.

The numbers are a function of the log from its beginning and of nothing else, so any shim gives the
same number to the same event, and `starting_after` works on all of them, for as long as the log
lives (LocalAI #10993: only on the replica that has the stream; openai-python #2828: five minutes).

Where an attempt starts over, what was told cannot be taken back. That `reset` has a number of its
own, and the events of the new attempt have the numbers after it: whoever has heard some of the old
ones is told an error under that number; whoever asks later hears the new ones only.
Source: openai/openai-openapi, ResponseStreamEvent.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic_core import from_json

from api_shim.following.drop_in import ANSWER_RESTARTED, TAKES_BACK, refusal_of
from api_shim.http.problems import Problem, Refusal
from api_shim.openai.errors import encoded
from api_shim.openai.responses.output import Event, Output
from api_shim.openai.responses.response import ResponseEnding, ResponseFacts, Status, error, usage
from contract import sse
from contract.events import EventId, Failed, Frame, Reset, Usage
from contract.json_lines import json_line

Numbered = tuple[int, Event]


class ResponseBuilder:
    """One response from its job's events, heard one after the other from the first on."""

    def __init__(self, about: ResponseFacts) -> None:
        """Nothing heard."""
        self._about = about
        self._forget()

    def _forget(self) -> None:
        self.next = 0
        """Number of the next event."""
        self.first = 0
        """Number of the first event that holds: those before it were taken back."""
        self.status: Status = "queued" if self._about.in_background else "in_progress"
        self.output: Output = self._about.output
        self._is_begun = self._has_started = self._has_refused = False
        self._ending: dict[str, Any] = {}
        self._spent: dict[str, Any] = {}

    @property
    def response(self) -> dict[str, Any]:
        """The response as it stands."""
        return self._about.response(self.status, self.output, **self._ending)

    def hear(self, frame: Frame) -> Iterator[Numbered]:
        """The events that come of the next event of the log."""
        for event in self._events(frame):
            event["sequence_number"] = self.next
            yield self.next, event
            self.next += 1

    def _events(self, frame: Frame) -> Iterator[Event]:
        match frame.type:
            case "delta":
                fields = from_json(frame.body)
                self._has_refused = self._has_refused or "refusal" in fields
                self._spent = fields.get("usage") or self._spent
                yield from self.output.add(fields)
            case "queued":
                yield from self._begun()
            case "started":
                yield from self._started()
            case "done":
                yield from self._done(from_json(frame.body))
            case "failed" | "cancelled":
                yield from self._ended(frame)
            case "reset":
                self.next += 1
                self.first, self.output = self.next, self._about.output
                self._is_begun = self._has_started = self._has_refused = False
                self._spent = {}
                yield from self._started()
            case "log_reset":
                self._forget()
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
        used = Usage.model_validate(told) if (told := fields.get("usage")) else None
        self.status, self._ending = ending.status, ending.fields(used, fields["at"])
        yield self._lifecycle(f"response.{self.status}")

    def _ended(self, frame: Frame) -> Iterator[Event]:
        yield from self._begun()
        end = frame.event
        spent = {"usage": usage(Usage.model_validate(self._spent))} if self._spent else {}
        if isinstance(end, Failed):
            self.status, self._ending = "failed", {"error": error(end), **spent}
        else:
            self.status, self._ending = "cancelled", spent
        yield self._lifecycle(f"response.{self.status}")

    def _lifecycle(self, type: str) -> Event:
        return {"type": type, "response": self.response}


class ResponseEvents:
    """A response as a stream of typed events, from any number on."""

    media_type = sse.MEDIA_TYPE
    keep_alive = sse.KEEP_ALIVE

    def __init__(
        self, about: ResponseFacts, *, after: int | None = None, known_reset: EventId | None = None
    ) -> None:
        """Tell what comes after this number, or what holds.

        `known_reset`: the last one in the log that lies behind this reader; by its id.
        """
        self._builder = ResponseBuilder(about)
        self._after = -1 if after is None else after
        self._has_told = after is not None
        self._known_reset = known_reset

    def parted(self, frames: list[Frame]) -> tuple[Sequence[Frame], Frame | None]:
        """What can be told, and what ends the stream: words taken back that somebody has heard."""
        for at, frame in enumerate(frames):
            if frame.type in TAKES_BACK and self._has_told and not self._is_known(frame):
                return frames[:at], frame
        return frames, None

    def _is_known(self, frame: Frame) -> bool:
        known = self._known_reset
        return known is not None and frame.id is not None and frame.id <= known

    def tell(self, frames: Sequence[Frame]) -> bytes:
        """Their events."""
        told: list[bytes] = []
        for frame in frames:
            if frame.type in TAKES_BACK:
                told.clear()
            for number, event in self._builder.hear(frame):
                if number > self._after and not self._is_to_be_taken_back(frame):
                    told.append(_encode(event))
        self._has_told = self._has_told or bool(told)
        return b"".join(told)

    def _is_to_be_taken_back(self, frame: Frame) -> bool:
        known = self._known_reset
        return known is not None and frame.id is not None and frame.id < known

    def fail(self, problem: Problem) -> bytes:
        """An error, at which clients raise.

        It is told in both ways: as documented, and as the original does (openai-dotnet #881). Its
        number is that of the reset, or, where the log knows nothing of it, of the last event that
        was told, so that a reader who comes back misses nothing.
        """
        is_in_log = problem.code == ANSWER_RESTARTED
        number = self._builder.next if is_in_log else max(self._builder.next - 1, self._after)
        return failure(problem, number)


def failure(problem: Problem, number: int) -> bytes:
    """An error as an event."""
    fault = from_json(encoded(problem))["error"]
    told = {"type": "error", "sequence_number": max(number, 0), **_flat(fault), "error": fault}
    return _encode(told)


def _encode(event: Event) -> bytes:
    return sse.encode(json_line(event), name=event["type"].encode())


def restarted() -> Refusal:
    """What a reader is told who has heard words that were taken back."""
    return refusal_of(Reset(attempt=0, reason=""))


def _flat(fault: dict[str, Any]) -> dict[str, Any]:
    return {name: fault[name] for name in ("code", "message", "param")}
