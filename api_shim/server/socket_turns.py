"""What a socket may do in a turn of the event loop: some accept more, others read less.

libuv, on which uvloop stands, accepts one connection a turn from each listening socket (since 1.45:
`uv__server_io`). While a shim is busy its turns take milliseconds: a probe on a new connection
waited for seconds behind a thousand others. Each copy of the socket accepts one more.

It reads a connection up to 32 times before the next one has its turn (`uv__read`), 256,000 bytes
each time, and for each the loop waits for the interpreter, which a thread that parses a large body
holds for a millisecond: the rest of ten refused bodies of 24 MB kept `/healthz` waiting for half a
second.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

_COPIES: Final = 31
"""For a connection that comes alone, so many calls of `accept` find none."""
LARGE_READ_BYTES: Final = 2**16
"""Behind a smaller read there is nothing: its buffer was not filled."""


async def accept_more(
    servers: Sequence[asyncio.Server], create_protocol: Callable[[], asyncio.Protocol], backlog: int
) -> list[asyncio.Server]:
    """Listen on copies of the sockets of these servers as well; returns the further servers."""
    loop = asyncio.get_running_loop()
    sockets = [each for server in servers for each in server.sockets]
    return [
        await loop.create_server(create_protocol, sock=each.dup(), backlog=backlog)
        for each in sockets
        for _ in range(_COPIES)
    ]


def read_once(transport: asyncio.Transport, data: bytes) -> None:
    """Read no more in this turn if so much has come; whoever has paused the transport decides."""
    if len(data) >= LARGE_READ_BYTES and not transport.is_closing() and transport.is_reading():
        transport.pause_reading()
        asyncio.get_running_loop().call_soon(_read_on, transport)


def _read_on(transport: asyncio.Transport) -> None:
    if not transport.is_closing():
        transport.resume_reading()
