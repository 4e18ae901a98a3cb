"""How a new connection fares behind very many others, and others beside one that sends much."""

import asyncio
import select
import signal
import socket
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Final, cast
from urllib.parse import urlsplit

import pytest
import uvloop
from support.redis_server import RedisServer
from support.shim import serving
from support.shims import shim

from api_shim.server import http_protocol, websocket_protocol
from api_shim.server.socket_turns import LARGE_READ_BYTES, read_once

SENT_BYTES: Final = 32 * 2**20


class Reading(asyncio.Protocol):
    """Counts the reads of each turn; each takes long enough that more has come after it."""

    def __init__(self, *, takes_turns: bool) -> None:
        self.takes_turns = takes_turns
        self.turn = 0
        self.reads: Counter[int] = Counter()
        self.received_bytes = 0
        self.has_ended = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._next_turn()

    def _next_turn(self) -> None:
        self.turn += 1
        if not self.has_ended.is_set():
            asyncio.get_running_loop().call_soon(self._next_turn)

    def data_received(self, data: bytes) -> None:
        self.reads[self.turn] += len(data) >= LARGE_READ_BYTES
        self.received_bytes += len(data)
        time.sleep(0.001)
        if self.takes_turns:
            read_once(self.transport, data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.has_ended.set()


async def received(*, takes_turns: bool) -> Reading:
    """What became of a large body."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        theirs = socket.create_connection(listening.getsockname())
        ours, _ = listening.accept()
    reading = Reading(takes_turns=takes_turns)
    await asyncio.get_running_loop().connect_accepted_socket(lambda: reading, ours)
    sender = threading.Thread(target=_send, args=(theirs,), daemon=True)
    sender.start()
    async with asyncio.timeout(60):
        await reading.has_ended.wait()
    sender.join(60)
    return reading


def _send(line: socket.socket) -> None:
    with line:
        line.sendall(bytes(SENT_BYTES))


def test_much_that_comes_has_one_read_in_a_turn_and_is_whole() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        reading = runner.run(received(takes_turns=True))

    assert max(reading.reads.values()) == 1
    assert reading.received_bytes == SENT_BYTES


def test_the_loop_alone_reads_many_times_in_a_turn() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        reading = runner.run(received(takes_turns=False))

    assert max(reading.reads.values()) > 1


HTTP_HEAD = b"POST /v1/models HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\n\r\n"
WEBSOCKET_HEAD = (
    b"GET /api/v1/jobs/00000000000000000000000000000000/events HTTP/1.1\r\nHost: localhost\r\n"
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@pytest.mark.parametrize(
    ("protocol", "head", "rest"),
    [
        (http_protocol, HTTP_HEAD, bytes(4 * 2**20)),
        (websocket_protocol, WEBSOCKET_HEAD, b"\x89\x80\0\0\0\0" * 700_000),
    ],
    ids=["http", "websocket"],
)
def test_a_connection_that_is_refused_takes_turns(
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    protocol: ModuleType,
    head: bytes,
    rest: bytes,
) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(protocol, "read_once", lambda _, data: sizes.append(len(data)))
    with serving(redis_server.url) as url:
        where = urlsplit(url)
        address = str(where.hostname), where.port or 0
        with socket.create_connection(address, timeout=10) as line:
            line.sendall(head)
            line.recv(12)
            with suppress(ConnectionError):  # it may be closed before all of it has come
                line.sendall(rest)

    assert max(sizes) >= LARGE_READ_BYTES


REQUEST = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
PROBE = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
MANY = 600


def test_a_probe_on_a_new_connection_is_not_the_last_of_all_that_came_at_once(
    redis_url: str, tmp_path: Path
) -> None:
    with shim(redis_url, tmp_path) as process:
        address = ("127.0.0.1", int(process.url.rpartition(":")[2]))
        process.popen.send_signal(signal.SIGSTOP)
        try:
            lines = [socket.create_connection(address, timeout=10) for _ in range(MANY)]
            for line in lines:
                line.sendall(REQUEST)
            probe = socket.create_connection(address, timeout=10)
            probe.sendall(PROBE)
        finally:
            process.popen.send_signal(signal.SIGCONT)
        answer = probe.recv(4096)
        readable = select.poll()
        for line in lines:
            readable.register(line, select.POLLIN)
        served = len(readable.poll(0))
        whole = [line.recv(4096).startswith(b"HTTP/1.1 200") for line in lines]
        for line in (*lines, probe):
            line.close()

    assert b" 200 " in answer.partition(b"\r\n")[0]
    assert served < MANY / 2
    assert all(whole)
