"""What the HTTP client may send twice, and what never."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from contract.errors import BackendUnreachable
from workers.backends.http.client import BackendClient

PLEASE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


class Server:
    """Answers `good` requests a connection, then reads one more and closes; late if told to."""

    def __init__(self, good: int, late_s: float = 0.0) -> None:
        self.good, self.late_s = good, late_s
        self.requests: list[str] = []

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = self.good
        while head := await _request(reader):
            self.requests.append(head)
            if left == 0:
                await asyncio.sleep(self.late_s)
                break
            left -= 1
            writer.write(PLEASE)
            await writer.drain()
        writer.close()


async def _request(reader: asyncio.StreamReader) -> str:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    except (asyncio.IncompleteReadError, ConnectionError):
        return ""
    length = [line for line in head.lower().splitlines() if line.startswith("content-length:")]
    await reader.readexactly(int(length[0].split(":")[1]) if length else 0)
    return head.split()[0]


@asynccontextmanager
async def against(server: Server) -> AsyncGenerator[BackendClient]:
    listener = await asyncio.start_server(server.connected, "127.0.0.1", 0)
    client = BackendClient(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}")
    try:
        yield client
    finally:
        await client.aclose()
        listener.close()


ASKS: list[tuple[str, dict[str, Any]]] = [("GET", {}), ("POST", {"repeatable": True})]
ACTS: list[tuple[str, dict[str, Any]]] = [("DELETE", {}), ("POST", {}), ("PUT", {})]


@pytest.mark.parametrize(("method", "how"), ASKS)
async def test_what_only_asks_is_sent_again_if_a_used_connection_was_closed_under_it(
    method: str, how: dict[str, Any]
) -> None:
    server = Server(good=1)
    async with against(server) as client:
        await client.json("GET", "/")
        await client.json(method, "/", **how)

    assert server.requests == ["GET", method, method]


@pytest.mark.parametrize(("method", "how"), [*ASKS, *ACTS])
async def test_nothing_is_sent_again_on_a_connection_that_nobody_had_used(
    method: str, how: dict[str, Any]
) -> None:
    server = Server(good=0)
    async with against(server) as client:
        with pytest.raises(BackendUnreachable):
            await client.json(method, "/", **how)

    assert server.requests == [method]


@pytest.mark.parametrize(("method", "how"), ACTS)
async def test_what_changes_something_never_meets_a_connection_that_went_stale(
    method: str, how: dict[str, Any]
) -> None:
    server = Server(good=1)
    async with against(server) as client:
        await client.json("GET", "/")
        await client.json(method, "/", **how)

    assert server.requests == ["GET", method]


async def test_a_server_that_thinks_before_it_closes_died_of_the_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("workers.backends.http.client.STALE_S", 0.05)
    server = Server(good=1, late_s=0.2)
    async with against(server) as client:
        await client.json("GET", "/")
        with pytest.raises(BackendUnreachable):
            await client.json("POST", "/", {"prompt": "crash"}, repeatable=True)

    assert server.requests == ["GET", "POST"]
