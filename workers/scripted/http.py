"""HTTP/1.1 of the scripted server, as a raw asyncio protocol, so that 1,000 streams are cheap.

A handler returns a `Reply`, or a `StreamedReply` of encoded packets. Connections can fail as those
of real servers do: cut, reset and stall.
"""

import asyncio
import contextlib
import socket
import struct
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, cast
from urllib.parse import parse_qsl, urlsplit

import httptools
from typing_extensions import override

Ending = Literal["end", "cut", "reset", "stall"]
_REASONS: Final = {200: b"OK", 400: b"Bad Request", 401: b"Unauthorized", 404: b"Not Found"}
_WRITE_AT_ONCE: Final = 64


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request."""

    method: str
    path: str
    query: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete response."""

    body: bytes
    status: int = 200
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class StreamedReply:
    """A streamed response; each packet is one HTTP chunk, encoded by `framed`."""

    packets: Sequence[bytes]
    content_type: str
    delay_s: float = 0.0
    """Seconds before the head: llama-server sends nothing before the first token."""
    gap_s: float = 0.0
    ending: Ending = "end"
    is_slow: bool = False
    """One packet per loop iteration even without a gap, so that they arrive separately."""


Handler = Callable[[HttpRequest], "Reply | StreamedReply | None"]
"""Returns the response to a request; None drops the connection."""


@dataclass(slots=True)
class ServerStats:
    """Counters of a server; `GET /_seen` returns them."""

    requests: Counter[str] = field(default_factory=Counter)
    open: int = 0
    """Open streams and delayed responses."""
    aborted: int = 0
    """Streams and delayed responses whose client disconnected before the end."""
    finished: int = 0
    texts: deque[int] = field(default_factory=lambda: deque(maxlen=10_000))
    """The number of texts of each embed request, oldest first."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def notify(self) -> None:
        """Wake the waiters of `until`."""
        self.changed.set()
        self.changed = asyncio.Event()

    async def until(
        self, condition: Callable[["ServerStats"], bool], limit_s: float = 10.0
    ) -> None:
        """Wait until a condition holds; raises TimeoutError after `limit_s`."""
        async with asyncio.timeout(limit_s):
            while not condition(self):
                await self.changed.wait()


def framed(packet: bytes) -> bytes:
    """A packet as one chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(packet), packet)


class ScriptedConnection(asyncio.Protocol):
    """One connection; it handles one request at a time."""

    def __init__(self, handler: Handler, seen: ServerStats) -> None:
        """`seen` is shared by all connections of a server."""
        self._handler = handler
        self._seen = seen
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._parser = httptools.HttpRequestParser(self)
        self._target, self._body = b"", bytearray()
        self._flow: StreamedReply | None = None
        self._is_answering = False
        self._next = 0
        self._timer: asyncio.Handle | None = None
        self._is_paused = False

    def abort(self) -> None:
        """Drop the connection."""
        self._transport.abort()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._flow = None
        if self._is_answering:
            self._end_answer()
            self._seen.aborted += 1
            self._seen.notify()

    @override
    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.close()

    @override
    def pause_writing(self) -> None:
        self._is_paused = True

    @override
    def resume_writing(self) -> None:
        self._is_paused = False
        if self._flow is not None and self._timer is None:
            self._step()

    def on_url(self, url: bytes) -> None:
        """httptools: a part of the request target."""
        self._target += url

    def on_body(self, body: bytes) -> None:
        """httptools: a part of the body."""
        self._body += body

    def on_message_complete(self) -> None:
        """httptools: the request is complete."""
        target = urlsplit(self._target.decode("latin-1"))
        method = self._parser.get_method().decode()
        request = HttpRequest(method, target.path, dict(parse_qsl(target.query)), bytes(self._body))
        self._target, self._body = b"", bytearray()
        self._seen.requests[request.path] += 1
        self._seen.notify()
        answer = self._handler(request)
        if answer is None:
            self._transport.abort()
        elif isinstance(answer, Reply):
            if answer.delay_s:
                self._start_answer()
            self._call_later(answer.delay_s, lambda: self._reply(answer))
        else:
            self._flow, self._next = answer, 0
            self._start_answer()
            self._call_later(answer.delay_s, self._begin)

    def _start_answer(self) -> None:
        self._is_answering = True
        self._seen.open += 1

    def _end_answer(self) -> None:
        self._is_answering = False
        self._seen.open -= 1

    def _call_later(self, delay_s: float, what: Callable[[], None]) -> None:
        if delay_s:
            self._timer = self._loop.call_later(delay_s, what)
        else:
            what()

    def _reply(self, reply: Reply) -> None:
        self._timer = None
        if self._is_answering:
            self._end_answer()
            self._seen.finished += 1
            self._seen.notify()
        more = "".join(f"{name}: {value}\r\n" for name, value in reply.headers)
        head = (
            f"HTTP/1.1 {reply.status} {_REASONS.get(reply.status, b'Other').decode()}\r\n"
            f"content-type: {reply.content_type}\r\ncontent-length: {len(reply.body)}\r\n{more}\r\n"
        )
        self._transport.write(head.encode() + reply.body)

    def _begin(self) -> None:
        self._timer = None
        if self._flow is None:
            return
        self._transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ntransfer-encoding: chunked\r\n\r\n"
            % self._flow.content_type.encode()
        )
        self._step()

    def _step(self) -> None:
        self._timer = None
        flow = self._flow
        if flow is None or self._is_paused:
            return
        at = self._next
        if at >= len(flow.packets):
            self._end(flow.ending)
            return
        if flow.gap_s or flow.is_slow:
            self._transport.write(flow.packets[at])
            self._next = at + 1
            if flow.gap_s:
                self._timer = self._loop.call_later(flow.gap_s, self._step)
                return
        else:
            self._transport.write(b"".join(flow.packets[at : at + _WRITE_AT_ONCE]))
            self._next = at + _WRITE_AT_ONCE
        if not self._is_paused:
            self._timer = self._loop.call_soon(self._step)

    def _end(self, ending: Ending) -> None:
        if ending == "stall":
            return
        self._flow = None
        self._end_answer()
        self._seen.finished += 1
        match ending:
            case "end":
                self._transport.write(b"0\r\n\r\n")
            case "cut":
                self._transport.close()
            case "reset":
                _reset(self._transport)
        self._seen.notify()


def _reset(transport: asyncio.Transport) -> None:
    """Close with RST: a linger of zero discards what the socket has not sent."""
    raw = transport.get_extra_info("socket")
    with contextlib.suppress(OSError):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
