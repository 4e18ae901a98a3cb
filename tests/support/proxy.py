"""A TCP proxy between two processes that can delay, cut and swallow what passes through it.

Faults that a kernel on loopback never makes by itself: a reset in mid-stream, a slow line, and the
half-open connection, where packets vanish and nobody is told.
"""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress

_READ_BYTES = 64 * 1024
_NOW = struct.pack("ii", 1, 0)
"""Zero linger: a close is an RST, and what the socket still holds is lost."""


class Link:
    """One connection through the proxy: two sockets, and what becomes of their bytes."""

    def __init__(self, proxy: "Proxy", sides: list[asyncio.StreamWriter]) -> None:
        self.proxy = proxy
        self.sides = sides
        self.is_dead = proxy.is_swallowing

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry bytes one way until either end closes; bytes of a dead link vanish."""
        while data := await reader.read(_READ_BYTES):
            if self.proxy.delay_s:
                await asyncio.sleep(self.proxy.delay_s)
            if writer is self.sides[0] and self.proxy.loses_reply():
                self.reset()
                return
            if not self.is_dead:
                writer.write(data)
                await writer.drain()
        if self.is_dead:
            # The other end learns nothing while packets vanish, not even of this end's close.
            await self.proxy.healed.wait()

    def reset(self) -> None:
        """End both connections as a crashed machine does: with RST."""
        for side in self.sides:
            line = side.get_extra_info("socket")
            if line is not None and not side.is_closing():
                with suppress(OSError):
                    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NOW)
            side.transport.abort()


class Proxy:
    """Listens on `url`'s port and passes everything on to one address."""

    def __init__(self, port: int) -> None:
        """Pass on to this port of loopback, faithfully until told otherwise."""
        self.target = port
        self.port = 0
        self.delay_s = 0.0
        """Seconds that each packet takes, in either direction."""
        self.loses_reply: Callable[[], bool] = lambda: False
        """Asked for each packet of the target: whether it is lost, and its connection reset."""
        self.is_refusing = False
        self.is_swallowing = False
        self.healed = asyncio.Event()
        self.links: set[Link] = set()

    @property
    def redis_url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Reset every connection; new ones are fine."""
        for link in list(self.links):
            link.reset()

    def cut_dead(self) -> None:
        """Reset the connections that `swallow` has killed, as a kernel's keep-alive would."""
        for link in [each for each in self.links if each.is_dead]:
            link.reset()

    def refuse(self) -> None:
        """Reset every connection, and the new ones, until `heal`."""
        self.is_refusing = True
        self.cut()

    def swallow(self) -> None:
        """Let everything vanish until `heal`; the connections of that time never recover."""
        self.is_swallowing = True
        self.healed.clear()
        for link in self.links:
            link.is_dead = True

    def heal(self) -> None:
        """Be faithful to new connections again."""
        self.delay_s = 0.0
        self.loses_reply = lambda: False
        self.is_refusing = self.is_swallowing = False
        self.healed.set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = Link(self, [writer])
        self.links.add(link)
        try:
            if self.is_refusing:
                return
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
            link.sides.append(far_writer)
            ways = (link.pump(reader, far_writer), link.pump(far_reader, writer))
            tasks = [asyncio.ensure_future(way) for way in ways]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        except OSError:
            pass
        finally:
            self.links.discard(link)
            link.reset()


@asynccontextmanager
async def proxy_to(port: int, tls: ssl.SSLContext | None = None) -> AsyncGenerator[Proxy]:
    """A proxy on a free port of loopback, as long as the block lasts; it may end TLS."""
    proxy = Proxy(port)
    server = await asyncio.start_server(proxy._connected, "127.0.0.1", 0, ssl=tls)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        proxy.heal()
        proxy.cut()
        while proxy.links:
            await asyncio.sleep(0.01)
