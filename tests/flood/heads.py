"""Floods before a key is checked: heads, slow clients, connections."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress

from flood.scene import Case, Outcome, Scene

HEAD = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n"
POST = (
    b"POST /api/v1/jobs/chat HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: 1000000\r\n\r\n{"
)
UPGRADE = (
    b"GET /api/v1/jobs/%s/events HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nAuthorization: Bearer flk_none\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" % (b"0" * 32)
)
PIECE = b"x" * 65536
_MOST_ANSWERS_BYTES = 1024
"""To frames of which each has an answer of two bytes."""


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


async def _frames(at: Scene, frame: bytes) -> str:
    """How the shim takes a WebSocket that sends very many of a frame, and no valid key."""
    reader, writer = await asyncio.open_connection(*at.address)
    writer.write(UPGRADE)
    await reader.readuntil(b"\r\n\r\n")

    async def flood() -> None:
        with suppress(ConnectionError):
            for _ in range(at.many(20)):
                writer.write(frame * 50_000)
                await writer.drain()

    sending = asyncio.create_task(flood())
    answers = b""
    with suppress(ConnectionError):
        answers = await reader.read()
    await sending
    writer.close()
    return "cut" if len(answers) < _MOST_ANSWERS_BYTES else "answered"


async def websocket_frames(at: Scene) -> Outcome:
    """Frames of every sort, empty and masked, a million of each."""
    found = [await _frames(at, bytes([first, 0x80, 0, 0, 0, 0])) for first in (0x89, 0x8A, 0x81, 1)]
    return all_are(Counter(found), {"cut"})


_SLOW = {"FLEET_HEAD_TIMEOUT_S": "1"}
CASES = [
    Case("a header without an end", endless_header, 8),
    Case("headers without an end", endless_headers, 8),
    Case("trailers without an end", endless_trailers, 8),
    Case("slow heads", slow_heads, 16, _SLOW),
    Case("slow bodies", slow_bodies, 24, _SLOW),
    Case("silent connections", silent_connections, 16, _SLOW),
    Case("pipelined requests", pipelined_requests, 24),
    Case("WebSocket frames", websocket_frames, 8),
    Case("connections", connections, 16, {"FLEET_MAX_CONNECTIONS": "100"}),
]
