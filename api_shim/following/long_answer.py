"""Whole answers whose text stays in the log until the response is sent.

A whole answer in memory costs a shim up to sixteen times its size: fragments, the joined text,
models, JSON. So of a long one only the beginning is given as it is to what builds the response;
each run of fragments after that is given as one short mark. The response is built as
any other, and sent in pieces: where a mark stands, the text of its run is read from the log again.

Log probabilities are a run of their own beside the text of their fragments: twenty of each token
are a hundred times the text. Their mark is an entry of its own, whose token is the mark.
"""

import logging
import re
from bisect import bisect_right
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import aclosing
from secrets import token_hex
from typing import Any, Final, NamedTuple

from pydantic import TypeAdapter
from pydantic_core import from_json
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from api_shim.following.event_stream import send_body
from api_shim.following.queue_position import Pages
from api_shim.http.head import is_head
from contract.errors import FleetError, JobNotFound
from contract.events import EventId, Frame, LogProb
from contract.json_lines import json_line
from relay.log import Log
from telemetry.repeated_warnings import RepeatedWarnings

_log = logging.getLogger(__name__)
_repeated = RepeatedWarnings(_log)

KEPT_BYTES: Final = 2**17
"""Of texts that are passed on as they are: most answers are shorter. The response has them, and is
held while its client does not read. An event counts as an eighth of its JSON at least."""
KEPT_BRIEFLY_BYTES: Final = 2**20
"""The same, if the log is gone soon after the end: a slow client may read for longer."""
_FRAME_BYTES: Final = 64
"""Of the JSON of an event, about, that is no text."""
_SENT_BYTES: Final = 2**16
"""At least, but for the last ones: there may be a piece for each word."""
_HEAD: Final = frozenset({"id", "at", "type"})
_BESIDE: Final = _HEAD | {"usage"}
LOGPROBS: Final = "logprobs"
"""The kind of a run that is no text."""
MakesEntry = Callable[[dict[str, Any]], dict[str, Any]]
"""Makes an entry of the response of one of the log, which has the fields of `LogProb`."""
_logprobs: Final = TypeAdapter(list[LogProb])


class _Run(NamedTuple):
    """Fragments that follow one another in the log."""

    kind: str
    """The field of their events that has the text, or the log probabilities."""
    after: EventId
    until: EventId


class LongAnswer:
    """The events of one job as they pass to what builds its response, and that response."""

    def __init__(
        self,
        log: Log,
        job_id: str,
        kinds: Collection[str] = ("content",),
        *,
        is_kept_briefly: bool = False,
        entry: MakesEntry | None = None,
    ) -> None:
        """`kinds` are the fields of a delta whose text the response has as it is, as JSON text.

        `LOGPROBS` among them: the response has a list of log probabilities, with the fields of
        `LogProb`, or as `entry` makes them, `token` first.
        `is_kept_briefly`: the job has a retention of its own.
        """
        self._entry = entry
        self._kept_bytes = KEPT_BRIEFLY_BYTES if is_kept_briefly else KEPT_BYTES
        self._log = log
        self._job_id = job_id
        self._kinds = kinds
        self._size_bytes = 0
        self._runs: list[_Run] = []
        self._running: tuple[_Run, ...] = ()
        """Those that the next frame may add to, which are the last."""
        self._name = ""
        """What marks begin with: no text of an answer has it."""

    async def of(self, pages: Pages) -> Pages:
        """The same pages of events, with marks."""
        async with aclosing(pages):
            async for frames in pages:
                yield self.passed_on(frames)

    def passed_on(self, frames: list[Frame]) -> list[Frame]:
        """The next frames of the log, in which marks replace text once there was much of it."""
        return [light for frame in frames if (light := self._kept_or_light(frame)) is not None]

    def _kept_or_light(self, frame: Frame) -> Frame | None:
        if self._size_bytes <= self._kept_bytes:
            size_bytes = len(frame.body)
            self._size_bytes += max(size_bytes - _FRAME_BYTES, size_bytes // 8)
        return frame if self._size_bytes <= self._kept_bytes else self._light(frame)

    def _light(self, frame: Frame) -> Frame | None:
        """The frame with marks; None if it adds to runs that have theirs, and nothing else."""
        fields: dict[str, Any] = from_json(frame.body) if frame.type == "delta" else {}
        kinds = [each for each in self._kinds if fields.get(each)]
        id = frame.id
        is_mixed = not fields.keys() <= {*_BESIDE, *kinds}
        if is_mixed:  # its text has a place beside the rest
            kinds, self._running = [each for each in kinds if each == LOGPROBS], ()
        if not kinds or id is None:
            self._running = ()
            return frame
        if kinds == [run.kind for run in self._running]:
            self._running = tuple(run._replace(until=id) for run in self._running)
            self._runs[-len(kinds) :] = self._running
            if "usage" not in fields:
                return None
            fields = {name: value for name, value in fields.items() if name not in kinds}
        else:
            self._running = tuple(_Run(kind, EventId(id.attempt, id.seq - 1), id) for kind in kinds)
            self._name = self._name or token_hex(16)
            for number, kind in enumerate(kinds, len(self._runs)):
                mark = f"{self._name}-{number};"
                fields[kind] = [{"token": mark, "logprob": 0}] if kind == LOGPROBS else mark
            self._runs += self._running
            self._running = () if is_mixed else self._running
        return Frame(id, frame.type, json_line(fields))

    def whole(self, response: Response) -> Response:
        """The response, or one that is sent in pieces if it has marks in it."""
        return _SentInPieces(response, self) if self._runs else response

    async def filled(self, body: bytes) -> bytes:
        """The same in one piece, of any body; raises JobNotFound, RelayUnavailable."""
        if not self._runs:
            return body
        async with aclosing(self.pieces(body)) as pieces:
            return b"".join([piece async for piece in pieces])

    async def pieces(self, body: bytes) -> AsyncGenerator[bytes]:
        """The body with the text in place of the marks; raises JobNotFound, RelayUnavailable."""
        at, name = 0, self._name.encode()
        marks = rb'\{"token":"%b-(\d+);"[^{}]*\}|%b-(\d+);' % (name, name)
        async with aclosing(_RunTexts(self._log, self._job_id, self._entry)) as read:
            for mark in re.finditer(marks, body):
                yield body[at : mark.start()]
                at = mark.end()
                async with aclosing(read.pieces(self._runs[int(mark[1] or mark[2])])) as pieces:
                    async for piece in pieces:
                        yield piece
        yield body[at:]


class _RunTexts:
    """Reads the text of runs from a log: those that follow one another in one pass.

    A model may think between any two words, so that there are as many runs as words.
    """

    def __init__(self, log: Log, job_id: str, entry: MakesEntry | None) -> None:
        self._log = log
        self._job_id = job_id
        self._entry = entry
        self._pages: AsyncGenerator[list[Frame]] | None = None
        self._frames: list[Frame] = []
        """Of the last page, those that no run has had."""
        self._read = EventId(0, 0)

    async def aclose(self) -> None:
        """Read no more."""
        if self._pages is not None:
            await self._pages.aclose()

    async def pieces(self, run: _Run) -> AsyncGenerator[bytes]:
        """What a run has as JSON, without quotes or brackets.

        Raises JobNotFound, RelayUnavailable.
        """
        if self._pages is None or run.after < self._read:
            await self.aclose()
            self._pages, self._frames = self._log.read(self._job_id, run.after), []
        self._read = run.until
        mark = b""
        while True:
            frames = self._frames or await anext(self._pages, [])
            if not frames:
                raise JobNotFound(f"the log of job {self._job_id} has gone while it was read")
            count = bisect_right(frames, run.until, key=_id)
            found = [
                from_json(frame.body).get(run.kind)
                for frame in frames[bisect_right(frames, run.after, key=_id) : count]
            ]
            has_ended, self._frames = _id(frames[-1]) >= run.until, frames[count:]
            del frames  # a client may take long to read it
            if run.kind != LOGPROBS:
                yield json_line("".join(text or "" for text in found))[1:-1]
            elif entries := [entry for listed in found for entry in listed or ()]:
                yield mark + self._listed(entries)
                mark = b","
            if has_ended:
                return

    def _listed(self, entries: list[dict[str, Any]]) -> bytes:
        if self._entry is None:
            return json_line(_logprobs.validate_python(entries))[1:-1]
        return json_line([self._entry(entry) for entry in entries])[1:-1]


def _id(frame: Frame) -> EventId:
    return frame.id or EventId(0, 0)


class _SentInPieces(Response):
    """The response to a long answer; its length is not known before it is sent."""

    def __init__(self, response: Response, answer: LongAnswer) -> None:
        self._answer = answer
        self._text = bytes(response.body)
        self.status_code = response.status_code
        self.media_type = response.media_type
        self.background = response.background
        self.raw_headers = [pair for pair in response.raw_headers if pair[0] != b"content-length"]

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; a client that reads slowly holds it back, and no more is read meanwhile."""
        head = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **head})
        if not is_head(scope):
            held = bytearray()
            try:
                async with aclosing(self._answer.pieces(self._text)) as pieces:
                    async for piece in pieces:
                        held += piece
                        if len(held) >= _SENT_BYTES:
                            await send_body(send, bytes(held))
                            held.clear()
            except FleetError as error:
                # The head is sent. The connection is closed without the end of the body, which
                # tells the client that something is missing.
                _repeated.warn("a whole answer ended early: %s", error.code)
                return
            await send_body(send, bytes(held), more=True)
        await send_body(send, b"", more=False)
