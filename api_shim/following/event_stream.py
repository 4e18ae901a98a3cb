"""Events as bytes: Server-Sent Events, lines of JSON, WebSocket messages.

This is the chunk path, so it is optimised: a frame's JSON is passed on unparsed, all frames of one
wake go out in one send, and the response is plain ASGI (docs/adr/0006). A slow reader is held back
by the server's flow control in its own task; the relay's follower then reads the log instead of
buffering. What is large is sent in pieces, and nothing further is read before they have left.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
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
from relay.compaction.follower_turns import in_turn
from telemetry.repeated_warnings import RepeatedWarnings

_log = logging.getLogger(__name__)
_repeated = RepeatedWarnings(_log)

PIECE_BYTES: Final = 64 * 1024
"""Of what is written at once: the server holds about two pieces for a client that reads nothing."""
_LARGE_BYTES: Final = 2 * PIECE_BYTES
"""A frame of more is not copied as a whole: a follower shares it with those of the same job."""
_INSIDE: Final = range(0x80, 0xC0)
"""Bytes inside of a character of UTF-8."""
CLOSE_TIMEOUT_S: Final = 1.0
"""Seconds that a shutdown leaves a stream's end to reach a client that may have stopped reading."""


class Format(NamedTuple):
    """A wire format of an event stream."""

    media_type: str
    encode: Callable[[Sequence[Frame]], bytes]
    keep_alive: bytes
    """Bytes to send after silence; empty if the format has no comment."""
    around: Callable[[Frame], tuple[bytes, bytes]]
    """What `encode` puts before and after the JSON of a frame."""


def to_sse(frames: Sequence[Frame]) -> bytes:
    """Frames as Server-Sent Events; a frame without an id does not move the client's cursor."""
    return one_line(b"".join([_event(frame) for frame in frames]))


def _event(frame: Frame) -> bytes:
    id = b"%d-%d" % frame.id if frame.id is not None else b""
    return sse.encode(frame.body, frame.type.encode(), id)


def _around(frame: Frame) -> tuple[bytes, bytes]:
    empty = _event(Frame(frame.id, frame.type, b""))
    return empty.removesuffix(sse.END), sse.END


def to_ndjson(frames: Sequence[Frame]) -> bytes:
    """Frames as newline-delimited JSON."""
    return one_line(b"".join(frame.body + b"\n" for frame in frames))


SSE: Final = Format(sse.MEDIA_TYPE, to_sse, sse.KEEP_ALIVE, _around)
NDJSON: Final = Format("application/x-ndjson", to_ndjson, b"", lambda _frame: (b"", b"\n"))


def pieces(format: Format, frame: Frame) -> Iterator[bytes]:
    """What `format.encode` makes of one large frame, a piece at a time."""
    before, after = format.around(frame)
    yield before
    body, at = frame.body, 0
    while at < len(body):
        end = at + PIECE_BYTES
        while at + 1 < end < len(body) and body[end] in _INSIDE:
            end -= 1
        yield one_line(body[at:end])
        at = end
    yield after


class EventStreamResponse(Response):
    """Streams a job's events until its terminal event, a disconnect or a shutdown."""

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
        """Stream these pages; `follower` counts as one of the job's followers while it is open."""
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
            await self._send_stream(receive, send)

    async def _send_stream(self, receive: Receive, send: Send) -> None:
        start = {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": self.raw_headers,
        }
        await send(start)
        ending = await self._open_calls.run(self._send_whole(send), receive)
        if ending is CallEnding.SHUTDOWN:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await send_body(send, b"", more=False)

    async def _send_whole(self, send: Send) -> None:
        """Send the pages and the end, for which a slow client has as long as it needs."""
        await self._send_pages(send)
        await send_body(send, b"", more=False)

    async def _send_pages(self, send: Send) -> None:
        if self._preamble:
            await send_body(send, self._preamble)
        try:
            async with aclosing(self._pages) as pages:
                async for frames in pages:
                    if len(frames) == 1 and len(frames[0].body) > _LARGE_BYTES:
                        for piece in pieces(self._format, frames[0]):
                            await in_turn()
                            await send_body(send, piece)
                        await send_body(send, b"")
                        continue
                    data = self._format.encode(frames) if frames else self._format.keep_alive
                    if data:
                        await send_body(send, data)
        except FleetError as error:
            # The head is sent, so this cannot become a problem document. A client that has not
            # received the terminal event reconnects with its cursor and gets the problem then.
            _repeated.warn("job %s: a stream ended early: %s", self._job_id, error.code)


class StateStreamResponse(Response):
    """Streams server-sent events that follow no job: a state, or the progress of a request.

    It ends, as the stream of a job does, when its client disconnects or this process shuts down.
    """

    def __init__(self, events: AsyncGenerator[bytes], open_calls: OpenCalls) -> None:
        """`events` yields whole events; it is closed when the response ends, however it ends."""
        self._events = events
        self._open_calls = open_calls
        self.status_code = 200
        self.media_type = sse.MEDIA_TYPE
        self.background = None
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no"})

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream; nothing is left running afterwards."""
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        ending = await self._open_calls.run(self._send_events(send), receive)
        if ending is not CallEnding.DISCONNECTED:
            await send_body(send, b"", more=False)

    async def _send_events(self, send: Send) -> None:
        try:
            async with aclosing(self._events) as events:
                async for event in events:
                    await send_body(send, event)
        except FleetError as error:
            # The head is sent: the client sees that the stream ended without its last event.
            _repeated.warn("a stream ended early: %s", error.code)


async def send_body(send: Send, data: bytes, *, more: bool = True) -> None:
    """Send a piece of a body, or its end; return from a large one when most of it has left.

    The server waits for a client that does not read before it takes the next bytes, not after.
    Where the operating system takes all of them at once, others have their turn in between.
    """
    if len(data) > PIECE_BYTES:
        for at in range(0, len(data), PIECE_BYTES):
            await in_turn()
            piece = data[at : at + PIECE_BYTES]
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        data = b""
    await send({"type": "http.response.body", "body": data, "more_body": more})
