"""A client that reads nothing is disconnected: a WebSocket, and a response that it asked for."""

import asyncio
import logging
import re
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from urllib.parse import urlsplit

import httpx
import pytest
from support.keys import bearer, keyed
from support.redis_server import RedisServer
from support.relay import words
from support.shim import serving, stage
from uvicorn.protocols.utils import ClientDisconnected

from api_shim.server.websocket_protocol import BoundedWebSocketProtocol

MANY = 32
UPGRADE = (
    f"GET /api/v1/jobs/{'0' * 32}/events HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@pytest.fixture(scope="module")
def shim(redis_server: RedisServer) -> Iterator[str]:
    with serving(redis_server.url, write_timeout_s=1, max_connections=40) as url:
        yield url


def unread(shim: str, request: str) -> socket.socket:
    """A connection with a small buffer that has sent a request and reads nothing."""
    where = urlsplit(shim)
    line = socket.socket()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    line.settimeout(10)
    line.connect((str(where.hostname), where.port or 0))
    line.sendall(request.encode())
    return line


def cut(shim: str) -> int:
    """How many clients that read nothing were disconnected."""
    found = re.search(r'reason="reads_nothing"} (\d+)', httpx.get(f"{shim}/metrics").text)
    return int(found[1]) if found else 0


def until_cut(shim: str, count: int) -> None:
    give_up_at = time.monotonic() + 20
    while cut(shim) < count:
        assert time.monotonic() < give_up_at
        time.sleep(0.1)


def test_a_client_that_reads_no_response_is_disconnected(shim: str) -> None:
    before = cut(shim)
    request = "GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with closing(unread(shim, request * 30)) as line:
        until_cut(shim, before + 1)
        with suppress(ConnectionResetError):
            while line.recv(2**20):
                pass


def test_a_websocket_that_reads_no_pong_is_disconnected(shim: str) -> None:
    before = cut(shim)
    ping = struct.pack("!BB4s", 0x89, 0x80 | 125, b"\0\0\0\0") + b"x" * 125
    with closing(unread(shim, UPGRADE)) as line:
        with suppress(OSError):
            for _ in range(1000):
                line.sendall(ping * 100)
        until_cut(shim, before + 1)


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (b"\x81\x01a", 1002),  # not masked
        (b"\x81\x81\0\0\0\0\xff", 1007),  # a text that is no UTF-8
        (b"\x82\xff" + b"\x7f" * 12, 1009),  # larger than any memory
        (b"\x88\x82\0\0\0\0\x03\xe8", 1000),  # a close
    ],
)
async def test_what_a_client_sends_in_the_middle_of_a_stream_is_no_error_of_ours(
    shim: str, redis_url: str, caplog: pytest.LogCaptureFixture, wrong: bytes, code: int
) -> None:
    async with stage(shim, redis_url) as at:
        job = await at.relay.enqueue()
        await at.relay.run(await at.relay.claim(), *words(2000))

        def call() -> bytes:
            with closing(unread(shim, UPGRADE.replace("0" * 32, job))) as line:
                line.recv(12)
                line.sendall(wrong)
                with line.makefile("rb") as answer:
                    return answer.read()

        told = await asyncio.to_thread(call)

    assert told.rpartition(b"\x88")[2][1:3] == struct.pack("!H", code)
    assert [each for each in caplog.records if each.levelno >= logging.ERROR] == []


async def test_an_event_after_the_close_finds_no_client() -> None:
    protocol = BoundedWebSocketProtocol.__new__(BoundedWebSocketProtocol)
    protocol.writable = asyncio.Event()
    protocol.writable.set()
    protocol.close_sent = True

    with pytest.raises(ClientDisconnected):
        await protocol.send({"type": "websocket.send", "text": "an event"})


def test_a_websocket_counts_as_a_connection_until_it_is_closed(shim: str) -> None:
    with httpx.Client(base_url=shim) as http:
        lines = [unread(shim, UPGRADE) for _ in range(MANY)]
        for line in lines:
            assert line.recv(12) == b"HTTP/1.1 101"
        gauge = re.compile(r"llmfleet_process_connections (\d+)")
        during = gauge.findall(http.get("/metrics").text)
        for line in lines:
            line.close()
        give_up_at = time.monotonic() + 10
        while gauge.findall(http.get("/metrics").text) != ["1"]:
            assert time.monotonic() < give_up_at
            time.sleep(0.05)

    assert during == [str(MANY + 1)]


def test_a_key_has_a_bound_of_open_calls_and_another_is_served(own_redis: RedisServer) -> None:
    with keyed(own_redis.url, max_calls_per_key=1) as shim, httpx.Client(base_url=shim.url) as http:
        one, two = (bearer(shim.issue(name)["key"]) for name in ("one", "two"))
        with http.stream("GET", "/api/v1/overview/events", headers=one):
            refused = httpx.get(f"{shim.url}/v1/models", headers=one)
            direct = httpx.post(f"{shim.url}/v1/embeddings", headers=one, json={})
            other = httpx.get(f"{shim.url}/v1/models", headers=two)
        give_up_at = time.monotonic() + 10
        while httpx.get(f"{shim.url}/v1/models", headers=one).status_code != 200:
            assert time.monotonic() < give_up_at

    assert (refused.status_code, direct.status_code, other.status_code) == (429, 429, 200)
    assert refused.json()["error"]["code"] == "too_many_calls"
    assert refused.headers["retry-after"] == "1"
