"""Floods before a key is checked: heads, slow clients, connections."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable

from flood.scene import Case, Outcome, Scene

HEAD = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n"
POST = (
    b"POST /api/v1/jobs/chat HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: 1000000\r\n\r\n{"
)
PIECE = b"x" * 65536


async def said(at: Scene, pieces: AsyncIterator[bytes]) -> str:
    """The status of the response to these bytes, or `closed`."""
    reader, writer = await asyncio.open_connection(*at.address)
    sending = asyncio.create_task(_send(writer, pieces))
    try:
        line = await reader.readline()
    except ConnectionError:
        line = b""
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    writer.close()
    return line.split()[1].decode() if line else "closed"


async def _send(writer: asyncio.StreamWriter, pieces: AsyncIterator[bytes]) -> None:
    async for piece in pieces:
        writer.write(piece)
        await writer.drain()


async def together(at: Scene, count: int, *pieces: bytes, pause_s: float = 0) -> Counter[str]:
    """The responses to the same bytes on many connections."""

    async def paced() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece
            await asyncio.sleep(pause_s)

    return Counter(await asyncio.gather(*(said(at, paced()) for _ in range(count))))


def told(found: Counter[str]) -> str:
    return ", ".join(f"{each} x {count}" for each, count in sorted(found.items()))


def all_are(found: Counter[str], allowed: Iterable[str]) -> Outcome:
    return Outcome(told(found), set(found) <= set(allowed))


async def endless_header(at: Scene) -> Outcome:
    found = await together(at, 8, HEAD + b"X-Endless: ", *[PIECE] * at.many(1700))
    return all_are(found, {"431"})


async def endless_headers(at: Scene) -> Outcome:
    found = await together(at, 8, HEAD, *[b"X: y\r\n" * 10_000] * at.many(1700))
    return all_are(found, {"431"})


async def endless_trailers(at: Scene) -> Outcome:
    head = POST.replace(b"Content-Length: 1000000", b"Transfer-Encoding: chunked")[:-1]
    found = await together(at, 8, head + b"0\r\nT: ", *[PIECE] * at.many(1700))
    return all_are(found, {"431"})


async def slow_heads(at: Scene) -> Outcome:
    found = await together(at, at.many(300), HEAD, *[b"X: y\r\n"] * 60, pause_s=0.5)
    return all_are(found, {"408"})


async def slow_bodies(at: Scene) -> Outcome:
    found = await together(at, at.many(300), POST, *[b" "] * 60, pause_s=0.5)
    return all_are(found, {"408"})


async def silent_connections(at: Scene) -> Outcome:
    return all_are(await together(at, at.many(300)), {"closed"})


async def pipelined_requests(at: Scene) -> Outcome:
    found = await together(at, 8, *[(HEAD + b"\r\n") * 10_000] * at.many(20))
    return all_are(found, {"200", "429", "closed"})


async def connections(at: Scene) -> Outcome:
    """Twice as many as there may be, of clients that begin a request and wait."""
    lines = [await asyncio.open_connection(*at.address) for _ in range(100)]
    found = await together(at, at.many(100), HEAD + b"\r\n")
    for _, writer in lines:
        writer.close()
    return all_are(found, {"503", "closed"})


_SLOW = {"FLEET_HEAD_TIMEOUT_S": "1"}
CASES = [
    Case("a header without an end", endless_header, 8),
    Case("headers without an end", endless_headers, 8),
    Case("trailers without an end", endless_trailers, 8),
    Case("slow heads", slow_heads, 16, _SLOW),
    Case("slow bodies", slow_bodies, 24, _SLOW),
    Case("silent connections", silent_connections, 16, _SLOW),
    Case("pipelined requests", pipelined_requests, 24),
    Case("connections", connections, 16, {"FLEET_MAX_CONNECTIONS": "100"}),
]
