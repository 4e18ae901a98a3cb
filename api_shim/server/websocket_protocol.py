"""uvicorn's WebSocket protocol with bounds: its connection is counted, and its client must read.

A client that sends pings and reads no pong would fill memory: the protocol answers them without
flow control. What a client sends that is no WebSocket message closes its connection, and is no
error of ours in the log.
"""

from typing import Any, Final, cast

from typing_extensions import override
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from api_shim.server.connection_guard import ConnectionGuard, WriteWatch
from api_shim.server.gathered_writes import GatheringTransport

_NO_UTF8: Final = 1007
"""The close code for a text message that is no UTF-8 (RFC 6455, 7.4.1)."""
_MOST_UNSENT_BYTES: Final = 2**20
"""Of answers to a client's own frames; events wait for it to read (`writable`)."""


class BoundedWebSocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket of a client, on the connection of the HTTP request that opened it."""

    guard: ConnectionGuard

    @override
    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._host = self.client[0] if self.client else ""
        self._writes = WriteWatch(cast("GatheringTransport", transport))
        self.guard.limits.enter(self._host)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.guard.limits.leave(self._host)
        super().connection_lost(exc)

    @override
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.get_write_buffer_size() > _MOST_UNSENT_BYTES:
            self._cut()

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

    def look(self, now: float) -> None:
        """Close the connection if its client has read nothing for too long."""
        if not self.transport.is_closing() and self._writes.stalled_s(now) > self.guard.write_s:
            self._cut()

    def _cut(self) -> None:
        self.guard.count("reads_nothing")
        self.transport.abort()


def websocket_protocol(guard: ConnectionGuard) -> type[BoundedWebSocketProtocol]:
    """The protocol of WebSockets that this guard bounds."""
    return type("WebSocketConnection", (BoundedWebSocketProtocol,), {"guard": guard})
