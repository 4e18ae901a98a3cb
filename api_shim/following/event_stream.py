"""Events as bytes: Server-Sent Events, lines of JSON, frames of a WebSocket.

This is the chunk path, so it is written by hand: a frame's JSON is passed on unparsed, all frames
of one wake go out in one send, and the response is plain ASGI (docs/adr/0006). A reader that does
not keep up is held by the server's flow control in its own task; the relay's follower then reads
the log instead of buffering.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, suppress
from typing import Final, NamedTuple

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from api_shim.following.queue_position import Pages
from api_shim.following.shutdown import CallEnding, OpenCalls
from contract import sse
from contract.errors import FleetError
from contract.events import Frame
from contract.json_lines import one_line

_log = logging.getLogger(__name__)

GOODBYE_S: Final = 1.0
"""For the end of a stream to reach a reader who may have stopped reading."""


class Format(NamedTuple):
    """One way to tell events."""

    media_type: str
    page: Callable[[Sequence[Frame]], bytes]
    keep_alive: bytes
    """Said after silence; empty where the format has nothing that says nothing."""


def to_sse(frames: Sequence[Frame]) -> bytes:
    """Frames as Server-Sent Events; one without an id leaves the reader's cursor where it is."""
    return one_line(b"".join([_event(frame) for frame in frames]))


def _event(frame: Frame) -> bytes:
    id = b"%d-%d" % frame.id if frame.id is not None else b""
    return sse.encode(frame.body, frame.type.encode(), id)


def to_ndjson(frames: Sequence[Frame]) -> bytes:
    """Frames as newline-delimited JSON."""
    return one_line(b"".join(frame.body + b"\n" for frame in frames))


SSE: Final = Format(sse.MEDIA_TYPE, to_sse, sse.KEEP_ALIVE)
NDJSON: Final = Format("application/x-ndjson", to_ndjson, b"")


class EventStreamResponse(Response):
    """A job's events until its last word, or until the reader leaves or the process stops."""

    def __init__(
        self,
        job_id: str,
        pages: Pages,
        format: Format,
        open_calls: OpenCalls,
        follower: AbstractAsyncContextManager[object],
        *,
        preamble: bytes = b"",
    ) -> None:
        """Tell these pages in this format, while the reader sits in this seat of the audience."""
        self._job_id = job_id
        self._pages = pages
        self._format = format
        self._open_calls = open_calls
        self._follower = follower
        self._preamble = preamble
        self.status_code = 200
        self.media_type = format.media_type
        self.background = None
        self.init_headers(
            {
                "Cache-Control": "no-store",
                "X-Accel-Buffering": "no",
                "X-Fleet-Job": job_id,
                "Vary": "Accept",
            }
        )

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream; nothing is left running afterwards."""
        async with self._follower:
            await self._tell(receive, send)

    async def _tell(self, receive: Receive, send: Send) -> None:
        start = {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": self.raw_headers,
        }
        await send(start)
        ending = await self._open_calls.attend(self._talk(send), receive)
        if ending is not CallEnding.GONE:
            with suppress(TimeoutError):
                async with asyncio.timeout(GOODBYE_S):
                    await say(send, b"", more=False)

    async def _talk(self, send: Send) -> None:
        if self._preamble:
            await say(send, self._preamble)
        try:
            async with aclosing(self._pages) as pages:
                async for frames in pages:
                    data = self._format.page(frames) if frames else self._format.keep_alive
                    if data:
                        await say(send, data)
        except FleetError as error:
            # The answer has begun, so it cannot become a problem document; a reader who was not
            # told a last word comes back with its cursor, and is told the problem then.
            _log.warning("job %s: a stream ended early: %s", self._job_id, error.code)


async def say(send: Send, data: bytes, *, more: bool = True) -> None:
    """Send a piece of a body, or its end."""
    await send({"type": "http.response.body", "body": data, "more_body": more})
