"""Whole answers whose text stays in the log until the response is sent.

A whole answer in memory costs a shim up to sixteen times its size: fragments, the joined text,
models, JSON. So of a long one only the beginning is given as it is to what builds the response;
each run of fragments after that is given as one short mark. The response is built as
any other, and sent in pieces: where a mark stands, the text of its run is read from the log again.
"""

import logging
import re
from bisect import bisect_right
from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing
from secrets import token_hex
from typing import Any, Final, NamedTuple

from pydantic_core import from_json
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from api_shim.following.event_stream import send_body
from api_shim.following.queue_position import Pages
from api_shim.http.head import is_head
from contract.errors import FleetError, JobNotFound
from contract.events import EventId, Frame
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


class _Run(NamedTuple):
    """Fragments of text that follow one another in the log."""

    kind: str
    """The field of their events that has the text."""
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
    ) -> None:
        """`kinds` are the fields of a delta whose text the response has as it is, as JSON text.

        `is_kept_briefly`: the job has a retention of its own.
        """
        self._kept_bytes = KEPT_BRIEFLY_BYTES if is_kept_briefly else KEPT_BYTES
        self._log = log
        self._job_id = job_id
        self._kinds = kinds
        self._size_bytes = 0
        self._runs: list[_Run] = []
        self._is_running = False
        """Whether the last frame may be followed by more of its run."""
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
        """The frame without its text; None if nothing else is in it, and a mark stands for it."""
        fields: dict[str, Any] = from_json(frame.body) if frame.type == "delta" else {}
        kind = next((each for each in self._kinds if fields.get(each)), None)
        id = frame.id
        if kind is None or id is None or fields.keys() - _HEAD - {kind, "usage"}:
            self._is_running = False
            return frame
        del fields[kind]
        if self._is_running and self._runs[-1].kind == kind:
            self._runs[-1] = self._runs[-1]._replace(until=id)
            if "usage" not in fields:
                return None
        else:
            self._name = self._name or token_hex(16)
            fields[kind] = f"{self._name}-{len(self._runs)};"
            self._runs.append(_Run(kind, EventId(id.attempt, id.seq - 1), id))
        self._is_running = True
        return Frame(id, frame.type, json_line(fields))

    def whole(self, response: Response) -> Response:
        """The response, or one that is sent in pieces if it has marks in it."""
        return _SentInPieces(response, self) if self._runs else response

    async def pieces(self, body: bytes) -> AsyncGenerator[bytes]:
        """The body with the text in place of the marks; raises JobNotFound, RelayUnavailable."""
        at = 0
        async with aclosing(_RunTexts(self._log, self._job_id)) as read:
            for mark in re.finditer(rb"%b-(\d+);" % self._name.encode(), body):
                yield body[at : mark.start()]
                at = mark.end()
                async with aclosing(read.text(self._runs[int(mark[1])])) as texts:
                    async for text in texts:
                        yield text
        yield body[at:]


class _RunTexts:
    """Reads the text of runs from a log: those that follow one another in one pass.

    A model may think between any two words, so that there are as many runs as words.
    """

    def __init__(self, log: Log, job_id: str) -> None:
        self._log = log
        self._job_id = job_id
        self._pages: AsyncGenerator[list[Frame]] | None = None
        self._frames: list[Frame] = []
        """Of the last page, those that no run has had."""
        self._read = EventId(0, 0)

    async def aclose(self) -> None:
        """Read no more."""
        if self._pages is not None:
            await self._pages.aclose()

    async def text(self, run: _Run) -> AsyncGenerator[bytes]:
        """The text of a run as JSON, without quotes; raises JobNotFound, RelayUnavailable."""
        if self._pages is None or run.after < self._read:
            await self.aclose()
            self._pages, self._frames = self._log.read(self._job_id, run.after), []
        self._read = run.until
        while True:
            frames = self._frames or await anext(self._pages, [])
            if not frames:
                raise JobNotFound(f"the log of job {self._job_id} has gone while it was read")
            count = bisect_right(frames, run.until, key=_id)
            text = "".join(
                from_json(frame.body).get(run.kind) or ""
                for frame in frames[bisect_right(frames, run.after, key=_id) : count]
            )
            has_ended, self._frames = _id(frames[-1]) >= run.until, frames[count:]
            del frames  # a client may take long to read the text
            yield json_line(text)[1:-1]
            if has_ended:
                return


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
