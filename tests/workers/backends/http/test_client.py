"""What the HTTP client may send twice, and what never."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from contract.errors import BackendUnreachable, BadEndpoint, ConnectionDropped, StaleConnection
from workers.backends.http.client import MOST_PACKET_BYTES, BackendClient
from workers.backends.http.json_text import AnswerSize

PLEASE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 0\r\n\r\n"


class Server:
    """Answers `good` requests a connection, then reads one more and closes, after `late_s`.

    `closes_idle`: it closes after the last answer and does not read one more.
    """

    def __init__(self, good: int, late_s: float = 0.0, *, closes_idle: bool = False) -> None:
        self.good, self.late_s, self.closes_idle = good, late_s, closes_idle
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
            if self.closes_idle and left == 0:
                break
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


Request = tuple[str, dict[str, Any]]
READS: list[Request] = [("GET", {}), ("HEAD", {}), ("POST", {"reads": True})]
PROMPT: Request = ("POST", {"pooled": True})
CHANGES: list[Request] = [("DELETE", {}), ("POST", {}), ("PUT", {})]


@pytest.mark.parametrize(("method", "how"), READS)
async def test_a_request_that_reads_is_sent_again_if_its_connection_was_stale(
    method: str, how: dict[str, Any]
) -> None:
    server = Server(good=1)
    async with against(server) as client:
        await client.json("GET", "/")
        await client.json(method, "/", **how)

    assert server.requests == ["GET", method, method]


async def test_a_prompt_is_sent_once_also_on_a_stale_connection() -> None:
    method, how = PROMPT
    server = Server(good=1)
    async with against(server) as client:
        await client.json("GET", "/")
        with pytest.raises(StaleConnection):
            await client.json(method, "/", **how)

    assert server.requests == ["GET", method]


async def test_the_next_prompt_uses_a_new_connection_despite_idle_ones() -> None:
    method, how = PROMPT
    server = Server(good=1)
    async with against(server) as client:
        await asyncio.gather(*(client.json("GET", "/") for _ in range(3)))
        with pytest.raises(StaleConnection):
            await client.json(method, "/", **how)
        await client.json(method, "/", **how)

    assert server.requests == [*["GET"] * 3, method, method]


async def test_a_prompt_never_meets_a_connection_that_is_known_to_be_closed() -> None:
    method, how = PROMPT
    server = Server(good=1, closes_idle=True)
    async with against(server) as client:
        for _ in range(20):
            await client.json(method, "/", **how)

    assert server.requests == [method] * 20


@pytest.mark.parametrize(("method", "how"), [*READS, PROMPT, *CHANGES])
async def test_nothing_is_sent_again_on_a_new_connection(method: str, how: dict[str, Any]) -> None:
    server = Server(good=0)
    async with against(server) as client:
        with pytest.raises(BackendUnreachable):
            await client.json(method, "/", **how)

    assert server.requests == [method]


@pytest.mark.parametrize(("method", "how"), CHANGES)
async def test_a_request_that_changes_something_never_uses_an_idle_connection(
    method: str, how: dict[str, Any]
) -> None:
    server = Server(good=1)
    async with against(server) as client:
        await client.json("GET", "/")
        await client.json(method, "/", **how)

    assert server.requests == ["GET", method]


async def test_a_server_that_closes_after_a_while_may_have_died_of_the_prompt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("workers.backends.http.client.STALE_S", 0.05)
    server = Server(good=1, late_s=0.2)
    async with against(server) as client:
        await client.json("GET", "/")
        with pytest.raises(ConnectionDropped) as caught:
            await client.json("POST", "/", {"prompt": "crash"}, pooled=True)

    assert type(caught.value) is ConnectionDropped
    assert server.requests == ["GET", "POST"]


async def test_a_body_that_comes_at_once_is_read_in_small_packets() -> None:
    # A backend that is faster than its reader: a thousand chunks would be parsed before the first
    # is published.
    body = b"0123456789abcdef" * 16_384

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _request(reader)
        head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body)
        writer.write(head + body)
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(connected, "127.0.0.1", 0)
    client = BackendClient(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}")
    try:
        async with client.open("GET", "/", backend="box") as answer:
            packets = [packet async for packet in answer.packets()]
    finally:
        await client.aclose()
        listener.close()

    assert b"".join(packets) == body
    assert max(map(len, packets)) <= MOST_PACKET_BYTES


@pytest.mark.parametrize(
    ("late_s", "is_left", "connections"), [(0.05, False, 1), (0.05, True, 2), (0.5, False, 2)]
)
async def test_a_connection_is_used_again_if_the_end_of_its_stream_comes_soon(
    *, late_s: float, is_left: bool, connections: int
) -> None:
    # The terminal event of a stream and the end of its body may be two packets.
    seen: list[int] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(len(seen))
        with suppress(ConnectionError):
            while await _request(reader):
                event = b"data: [DONE]\n\n"
                writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                writer.write(b"%x\r\n%s\r\n" % (len(event), event))
                await asyncio.sleep(late_s)
                writer.write(b"0\r\n\r\n")
                await writer.drain()
        writer.close()

    async def ask(client: BackendClient) -> None:
        async with client.open("POST", "/", {}, pooled=True) as answer:
            await anext(answer.packets())
            if is_left:
                raise asyncio.CancelledError

    listener = await asyncio.start_server(connected, "127.0.0.1", 0)
    client = BackendClient(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}")
    try:
        await asyncio.gather(ask(client), return_exceptions=True)
        await asyncio.sleep(0.4)
        await asyncio.gather(ask(client), return_exceptions=True)
    finally:
        await client.aclose()
        await asyncio.sleep(late_s + 0.1)  # until the server has noticed
        listener.close()

    assert len(seen) == connections


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_answer_without_an_end_is_not_kept(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.backends.http.client.LISTING", AnswerSize(50_000))
    monkeypatch.setattr("workers.backends.http.client.WHOLE", AnswerSize(100_000))

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await _request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n")
            while True:
                writer.write(b"[" * 10_000)
                await writer.drain()

    listener = await asyncio.start_server(connected, "127.0.0.1", 0)
    client = BackendClient(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}")
    try:
        with pytest.raises(BadEndpoint, match=r"answered more than (50000|100000) bytes"):
            await client.json(method, "/", limit_s=5)
    finally:
        await client.aclose()
        listener.close()


@pytest.mark.parametrize(
    "heads",
    [
        b"HTTP/1.1 102 Processing\r\n\r\n" * 10_000,
        b"HTTP/1.1 102 Processing\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 99,
    ],
)
async def test_interim_responses_without_an_end_are_no_answer(heads: bytes) -> None:
    sent = 0

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        with suppress(ConnectionError):
            await _request(reader)
            while True:
                writer.write(heads)
                sent += len(heads)
                await writer.drain()
                await asyncio.sleep(0)

    listener = await asyncio.start_server(connected, "127.0.0.1", 0)
    client = BackendClient(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}")
    try:
        with pytest.raises(BadEndpoint, match="responses without an end"):
            await client.json("POST", "/", limit_s=5)
    finally:
        await client.aclose()
        listener.close()

    assert sent < 20 * 2**20


async def test_interim_responses_before_an_answer_are_passed_over() -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(3):
            await _request(reader)
            writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 60)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n" + b'{"a":1}')
            await writer.drain()
        writer.close()

    listener = await asyncio.start_server(connected, "127.0.0.1", 0)
    client = BackendClient(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}")
    try:
        assert [await client.json("GET", "/", limit_s=5) for _ in range(3)] == [{"a": 1}] * 3
    finally:
        await client.aclose()
        listener.close()
