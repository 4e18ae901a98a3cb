"""uvicorn's WebSocket protocol with bounds: on connections, on frames, on what is not read.

What a client sends that is no WebSocket message closes its connection, and is no error of ours in
the log. Nothing is read between a request and the answer to it, because the library would answer
frames before the handshake; nothing of a client that sent too many frames is parsed any more.
"""

from typing import Any, Final, cast

from typing_extensions import override
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.http11 import Request

from api_shim.server.connection_guard import LINGER_S, ConnectionGuard, WriteWatch
from api_shim.server.frame_rate import MOST_FRAMES, CountedFrames, FrameRate, TooManyFrames
from api_shim.server.gathered_writes import GatheringTransport
from api_shim.server.socket_turns import read_once

_NO_UTF8: Final = 1007
"""The close code for a text message that is no UTF-8 (RFC 6455, 7.4.1)."""


class BoundedWebSocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket of a client, on the connection of the HTTP request that opened it."""

    guard: ConnectionGuard

    @override
    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.conn = CountedFrames(
            FrameRate(self.loop.time), max_size=self.config.ws_max_size, logger=self.logger
        )
        self._is_deaf = False
        """Whether what comes is dropped, until the client has read why."""
        self._host = self.client[0] if self.client else ""
        self._writes = WriteWatch(cast("GatheringTransport", transport))
        self.guard.limits.enter(self._host)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.guard.limits.leave(self._host)
        super().connection_lost(exc)

    @override
    def data_received(self, data: bytes) -> None:
        if not self._is_deaf:
            super().data_received(data)
        read_once(self.transport, data)

    @override
    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if not self.transport.is_closing():
            self.transport.pause_reading()

    @override
    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) >= MOST_FRAMES:  # a message of empty fragments has no size
            self.frames = [b"".join(self.frames)]
        super().handle_cont(event)

    @override
    def handle_parser_exception(self) -> None:
        if not isinstance(self.conn.parser_exc, TooManyFrames):
            super().handle_parser_exception()
            return
        self.guard.count("too_many_frames")
        self._is_deaf = self.close_sent = True
        self.queue.put_nowait({"type": "websocket.disconnect", "code": 1008})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.transport.write_eof()
        self._end_within(LINGER_S)

    def _end_within(self, wait_s: float) -> None:
        """Give the client a moment to read why: unread input would discard what was written."""
        if self.close_timer is not None:
            self.close_timer.cancel()
        self.close_timer = self.loop.call_later(wait_s, self.transport.abort)

    @override
    def send_receive_event_to_app(self) -> None:
        if self.curr_msg_data_type == "text" and not self.close_sent:
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self.frames = []
                self.conn.send_close(_NO_UTF8)
                self.handle_parser_exception()
                return
        super().send_receive_event_to_app()

    @override
    async def send(self, message: Any) -> None:
        """Send a message; raises ClientDisconnected for an event after the close.

        The protocol closes for what a client has sent wrong, of which the application, in the
        middle of a stream, learns only then.
        """
        if message["type"] == "websocket.send":
            await self.writable.wait()
            if self.close_sent:
                raise ClientDisconnected
        await super().send(message)
        if message["type"] == "websocket.accept" and not self.transport.is_closing():
            self.transport.resume_reading()

    def look(self, now: float) -> None:
        """Close the connection if its client has read nothing for too long."""
        if not self.transport.is_closing() and self._writes.stalled_s(now) > self.guard.write_s:
            self.guard.count("reads_nothing")
            self.transport.abort()


def websocket_protocol(guard: ConnectionGuard) -> type[BoundedWebSocketProtocol]:
    """The protocol of WebSockets that this guard bounds."""
    return type("WebSocketConnection", (BoundedWebSocketProtocol,), {"guard": guard})
