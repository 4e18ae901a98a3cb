"""More than one connection is accepted in a turn of the event loop.

libuv, on which uvloop stands, accepts one connection a turn from each listening socket (since 1.45:
`uv__server_io`). While a shim is busy its turns take milliseconds: a probe on a new connection
waited for seconds behind a thousand others. Each copy of the socket accepts one more.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

_COPIES: Final = 31
"""For a connection that comes alone, so many calls of `accept` find none."""


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
