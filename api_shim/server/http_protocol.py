"""uvicorn's HTTP protocol with bounds: on a head, on the time of head and body, on what waits.

uvicorn bounds none of these with httptools: a header without an end fills memory, and a client that
sends or reads slowly holds its connection for ever. A refused client gets a response and is given a
moment to read it, because closing a socket with unread input discards what was written.
"""

from typing import Any, Final, cast

from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from api_shim.http.auth_middleware import OPEN_PATHS
from api_shim.server.connection_guard import (
    CHUNKS_IN_HTTP_1_0,
    HEAD_TOO_LARGE,
    LEAST_CHUNK_BYTES,
    LINGER_S,
    MALFORMED,
    MOST_HEAD_BYTES,
    MOST_HEADERS,
    MOST_PIPELINED,
    MOST_SMALL_CHUNKS,
    NO_HOST,
    PIPELINED,
    SMALL_CHUNKS,
    UNKNOWN_CODING,
    Closing,
    ConnectionGuard,
    WriteWatch,
)
from api_shim.server.connection_limits import Verdict
from api_shim.server.gathered_writes import GatheringTransport
from api_shim.server.socket_turns import read_once

_REST_S: Final = 30.0
"""For the rest of a body whose request was answered before its end."""
_HEADER_BYTES: Final = len(": \r\n")


class BoundsExceeded(Exception):
    """Ends the parser from one of its callbacks."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection of a client."""

    guard: ConnectionGuard

    @override
    def connection_made(self, transport: Any) -> None:
        gathering = GatheringTransport(transport)
        super().connection_made(cast("Any", gathering))
        self._host = self.client[0] if self.client else ""
        self._writes = WriteWatch(gathering)
        self._why = MALFORMED
        """Why the parser was ended, if it was."""
        self._is_refused = False
        self._is_in_head = True
        self._is_in_body = False
        self._path = ""
        self._head_bytes = 0
        self._unreported_bytes = 0
        """Received since the parser last reported a whole head, a piece of a body or its end."""
        self._body_bytes = 0
        self._chunks = self._chunks_bytes = 0
        """Of the body: those that came together with others, and their bytes."""
        self._has_chunk = False
        """Whether what was received last has a chunk before."""
        self._since: float | None = None
        """When the current wait (for a head, or for a body in this window) was first seen."""
        self._refused_at = 0.0
        self._verdict: Verdict | None = self.guard.limits.enter(self._host)
        if self._verdict == "no_room":
            self.guard.count(self._verdict)
            self.transport.abort()
        elif self._verdict != "admitted":
            self.app = cast("Any", self.guard.refusing(cast("Any", self.app), self._verdict))

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        super().connection_lost(exc)

    def _leave(self) -> None:
        if self._verdict is not None:
            self._verdict = None
            self.guard.limits.leave(self._host)

    @override
    def data_received(self, data: bytes) -> None:
        if not self._is_refused and self.parser is not None:
            self._parse(data)
        read_once(self.transport, data)

    def _parse(self, data: bytes) -> None:
        self._unreported_bytes += len(data)
        self._has_chunk = False
        super().data_received(data)
        if self._unreported_bytes > MOST_HEAD_BYTES:
            self._refuse(HEAD_TOO_LARGE)
        elif not (self._is_in_head or self._is_in_body) and self._is_answered:
            self._is_in_head = True  # blank lines before a head are a head that does not end

    @property
    def _is_answered(self) -> bool:
        return self._cycle is None or self._cycle.response_complete

    @property
    def _cycle(self) -> RequestResponseCycle | None:
        return self.cycle  # uvicorn's annotation has no None

    @override
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._path = ""
        self._is_in_head, self._head_bytes = True, 0

    @override
    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._path = self.url.partition(b"?")[0].decode("latin-1")
        self._head_bytes += len(url)

    @override
    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value) + _HEADER_BYTES
        if self._head_bytes > MOST_HEAD_BYTES or len(self.headers) >= MOST_HEADERS:
            self._end_parser(HEAD_TOO_LARGE)
        if self._is_in_head:  # else it is a trailer, which is no header (RFC 9110, 6.5.1)
            super().on_header(name, value)

    @override
    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= MOST_PIPELINED:
            self._end_parser(PIPELINED)
        if (why := self._wrong_head()) is not None:
            self._end_parser(why)
        self._is_in_head, self._is_in_body = False, True
        self._unreported_bytes = self._body_bytes = 0
        self._chunks = self._chunks_bytes = 0
        self._since = None
        super().on_headers_complete()

    def _wrong_head(self) -> Closing | None:
        """Where two programs could read a request as two different ones (RFC 9112, 3.2 and 6.1)."""
        is_old = self.parser.get_http_version() in {"0.9", "1.0"}
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (not hosts and not is_old and self._path not in OPEN_PATHS):
            return NO_HOST
        codings = [value for name, value in self.headers if name == b"transfer-encoding"]
        if not codings:
            return None
        if is_old:
            return CHUNKS_IN_HTTP_1_0
        return None if b",".join(codings).strip().lower() == b"chunked" else UNKNOWN_CODING

    @override
    def on_body(self, body: bytes) -> None:
        self._unreported_bytes = 0
        self._body_bytes += len(body)
        if self._has_chunk:
            self._chunks += 1
            self._chunks_bytes += len(body)
            least_bytes = self._chunks * LEAST_CHUNK_BYTES
            if self._chunks > MOST_SMALL_CHUNKS and self._chunks_bytes < least_bytes:
                self._end_parser(SMALL_CHUNKS)
        self._has_chunk = True
        super().on_body(body)

    @override
    def on_message_complete(self) -> None:
        self._is_in_body, self._unreported_bytes = False, 0
        super().on_message_complete()

    @override
    def handle_websocket_upgrade(self) -> None:
        if self._verdict in {"too_many", "too_many_of_address"}:
            self._refuse(Closing(self._verdict, self.guard.refusal(self._verdict)))
            return
        self._leave()
        super().handle_websocket_upgrade()

    def _end_parser(self, why: Closing) -> None:
        self._why = why
        raise BoundsExceeded

    @override
    def send_400_response(self, msg: str) -> None:
        """Refuse a request that the parser did not read to its end."""
        self._refuse(self._why)

    def _refuse(self, why: Closing) -> None:
        if self._is_refused:  # by the parser, of whose bytes there are too many as well
            return
        self.guard.count(why.reason)
        self._is_refused, self._refused_at = True, self.loop.time()
        self._unset_keepalive_if_required()
        if self._cycle is not None and (self._is_in_body or not self._is_answered):
            if self._cycle.response_started:
                self.transport.abort()  # a second response would be read as a part of the first
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.write(self.guard.response(why.refusal, self._path))
        self.transport.write_eof()
        self.flow.resume_reading()

    def look(self, now: float) -> None:
        """Close the connection if it has held something for too long."""
        if self.transport.is_closing():
            return
        if self._is_refused:
            if now - self._refused_at > LINGER_S:
                self.transport.abort()
        elif self._writes.stalled_s(now) > self.guard.write_s:
            self.guard.count("reads_nothing")
            self.transport.abort()
        elif self._is_in_head and self._is_answered:
            self._look_at_head(now)
        elif self._is_in_body:
            self._look_at_body(now)

    def _look_at_head(self, now: float) -> None:
        if self._since is None:
            self._since = now
        elif now - self._since >= self.guard.head_s:
            if self._unreported_bytes:
                self._refuse(self.guard.head_too_slow)
            else:
                self.transport.close()

    def _look_at_body(self, now: float) -> None:
        if self.flow.read_paused:  # the application is the one who is slow
            self._since = None
        elif self._since is None:
            self._since, self._body_bytes = now, 0
        elif self._is_answered:
            if now - self._since >= _REST_S:
                self.transport.close()
        elif now - self._since >= self.guard.head_s:
            if self._body_bytes < self.guard.least_upload_bytes:
                self._refuse(self.guard.body_too_slow)
            self._since, self._body_bytes = now, 0


def http_protocol(guard: ConnectionGuard) -> type[BoundedHttpProtocol]:
    """The protocol of connections that this guard bounds."""
    return type("HttpConnection", (BoundedHttpProtocol,), {"guard": guard})
