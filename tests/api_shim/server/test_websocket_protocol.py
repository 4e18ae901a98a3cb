"""A client that reads nothing is disconnected: a WebSocket, and a response that it asked for."""

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
from support.shim import serving

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
