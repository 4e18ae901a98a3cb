"""A client that reads nothing, or sends many frames, is disconnected.

Subjects: api_shim/server/websocket_protocol.py, api_shim/server/frame_rate.py.
"""

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
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from api_shim.server.frame_rate import (
    FRAMES_PER_S,
    MOST_FRAMES,
    TOO_MANY_WORDS,
    CountedFrames,
    FrameRate,
)
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


def rest(line: socket.socket) -> bytes:
    """All that the shim sends until it closes."""
    told = b""
    with suppress(ConnectionResetError):
        while data := line.recv(2**16):
            told += data
    return told


def cut(shim: str, reason: str = "reads_nothing") -> int:
    """How many clients were disconnected for this."""
    found = re.search(rf'reason="{reason}"}} (\d+)', httpx.get(f"{shim}/metrics").text)
    return int(found[1]) if found else 0


def until_cut(shim: str, count: int, reason: str = "reads_nothing") -> None:
    give_up_at = time.monotonic() + 20
    while cut(shim, reason) < count:
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


@pytest.mark.parametrize(
    "flood",
    [
        b"\x89\x80\0\0\0\0",  # pings
        b"\x8a\x80\0\0\0\0",  # pongs
        b"\x81\x80\0\0\0\0",  # empty texts
        b"\x82\x81\0\0\0\0x",
        b"\x01\x80\0\0\0\0" + b"\x00\x80\0\0\0\0" * 9 + b"\x80\x80\0\0\0\0",  # in fragments
    ],
)
def test_a_websocket_that_sends_many_frames_is_cut_also_after_the_close_of_the_shim(
    shim: str, flood: bytes
) -> None:
    """There is no such job, as there might be no key."""
    before = cut(shim, "too_many_frames")
    with closing(unread(shim, UPGRADE)) as line:
        told = line.recv(12)
        with suppress(OSError):
            line.sendall(flood * 20_000)
        told += rest(line)
        until_cut(shim, before + 1, "too_many_frames")

    assert told.startswith(b"HTTP/1.1 101")
    assert told.count(b"\x8a\0") <= MOST_FRAMES


def test_frames_before_the_handshake_are_not_answered_before_it(shim: str) -> None:
    with closing(unread(shim, UPGRADE)) as line:
        with suppress(OSError):
            line.sendall(b"\x89\x80\0\0\0\0" * 500_000)
        told = rest(line)

    assert told.startswith(b"HTTP/1.1 101")
    assert told.count(b"\x8a\0") <= MOST_FRAMES


@pytest.mark.parametrize("frames", [MOST_FRAMES, MOST_FRAMES + 1, 10_000])
def test_of_many_frames_in_one_read_few_are_parsed(
    frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[Frame] = []
    check = Frame.check

    def counted(frame: Frame) -> None:
        if frame.opcode is Opcode.PING:  # not our pongs
            parsed.append(frame)
        check(frame)

    monkeypatch.setattr(Frame, "check", counted)
    protocol = CountedFrames(FrameRate(lambda: 0.0), state=OPEN)
    protocol.parser = super(ServerProtocol, protocol).parse()
    next(protocol.parser)
    for _ in range(3):
        protocol.receive_data(b"\x89\x80\0\0\0\0" * frames)

    assert len(parsed) == MOST_FRAMES + 1
    assert protocol.close_sent is not None
    assert protocol.close_sent.code == 1008


def test_a_client_may_send_some_frames_a_second_for_ever() -> None:
    now = [0.0]
    rate = FrameRate(lambda: now[0])
    at_once = [rate.take() for _ in range(MOST_FRAMES + 1)]
    later: list[bool] = []
    for _ in range(1000):
        now[0] += 1
        later += [rate.take() for _ in range(int(FRAMES_PER_S))]

    assert at_once == [True] * MOST_FRAMES + [False]
    assert all(later)


async def test_a_live_websocket_whose_client_floods_it_is_told_why(
    shim: str, redis_url: str
) -> None:
    before = cut(shim, "too_many_frames")
    async with stage(shim, redis_url) as at:
        job = await at.relay.enqueue()

        def call() -> bytes:
            with closing(unread(shim, UPGRADE.replace("0" * 32, job))) as line:
                line.recv(12)
                line.sendall(b"\x89\x80\0\0\0\0" * 20_000)
                with line.makefile("rb") as answer:
                    return answer.read()

        told = await asyncio.to_thread(call)

    assert told.endswith(struct.pack("!H", 1008) + TOO_MANY_WORDS.encode())
    assert cut(shim, "too_many_frames") == before + 1


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
