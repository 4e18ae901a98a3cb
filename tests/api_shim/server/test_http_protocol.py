"""A client that sends a head without end, or nothing at all, holds neither memory nor a connection.

Subjects: api_shim/server/http_protocol.py, api_shim/server/connection_guard.py.
"""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import urlsplit

import httpx
import pytest
from support.redis_server import RedisServer
from support.shim import CHAT, serving

GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = (
    b"POST /api/v1/jobs/chat HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
)


@pytest.fixture(scope="module")
def shim(redis_server: RedisServer) -> Iterator[str]:
    """A shim that waits a second for a head."""
    bounds = {"head_timeout_s": 1, "min_upload_bytes_s": 1000, "max_connections": 8}
    with serving(redis_server.url, **bounds) as url:
        yield url


def connection(shim: str) -> socket.socket:
    where = urlsplit(shim)
    return socket.create_connection((str(where.hostname), where.port or 0), timeout=10)


def answer(line: socket.socket) -> bytes:
    """All that the shim sends until it closes."""
    received = b""
    try:
        while data := line.recv(65536):
            received += data
    except ConnectionResetError:
        pass
    return received


def answered(shim: str, *pieces: bytes) -> tuple[int, str]:
    """Status and code of the response to these bytes."""
    with closing(connection(shim)) as line:
        try:
            for piece in pieces:
                line.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass
        head, _, body = answer(line).partition(b"\r\n\r\n")
    problem = json.loads(body)
    return int(head.split()[1]), str(problem.get("error", problem)["code"])


@pytest.mark.parametrize(
    "pieces",
    [
        [GET + b"X-Long: " + b"x" * 66_000 + b"\r\n\r\n"],
        [GET + b"X-Endless: ", *[b"x" * 16_384] * 40],
        [GET + b"X: y\r\n" * 101 + b"\r\n"],
        [b"GET /" + b"x" * 66_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"],
        [CHUNKED + b"0\r\nT: " + b"x" * 66_000 + b"\r\n\r\n"],
        [CHUNKED + b"1;", *[b"x" * 16_384] * 40],
        [b"\r\n" * 40_000],
    ],
    ids=["long", "endless", "many", "line", "trailer", "extension", "blank"],
)  # fmt: skip
def test_a_head_over_the_bounds_is_a_431(shim: str, pieces: list[bytes]) -> None:
    assert answered(shim, *pieces) == (431, "head_too_large")


@pytest.mark.parametrize("route", [b"/api/v1/jobs/chat", b"/v1/files"])
def test_a_body_in_a_million_chunks_is_refused_after_some(shim: str, route: bytes) -> None:
    head = CHUNKED.replace(b"/api/v1/jobs/chat", route)
    with closing(connection(shim)) as line:
        sent = 0
        try:
            line.sendall(head)
            for _ in range(1_000):
                line.sendall(b"1\r\n \r\n" * 1_000)
                sent += 1
        except (BrokenPipeError, ConnectionResetError):
            pass
        received = answer(line)

    assert sent < 1_000 or b"chunks_too_small" in received
    assert 'refused_connections_total{reason="small_chunks"}' in httpx.get(f"{shim}/metrics").text


def test_many_small_chunks_of_a_whole_body_are_served(shim: str) -> None:
    body = json.dumps(CHAT).encode() + b" " * 9_000
    with closing(connection(shim)) as line:
        line.sendall(CHUNKED.replace(b"Host", b"Connection: close\r\nHost"))
        line.sendall(b"".join(b"1\r\n%c\r\n" % each for each in body) + b"0\r\n\r\n")

        assert b"415" in answer(line)[:40]  # it says no type, and is read to its end


MODELS = b"GET /v1/models HTTP/1.1\r\n"
HOST = b"Host: localhost\r\n"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (MODELS, 400),
        (MODELS + HOST + HOST, 400),
        (MODELS + HOST + b"host: other.example\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\n" + HOST + HOST, 400),
        (b"GET /v1/models HTTP/1.0\r\n" + HOST + HOST, 400),
        (MODELS + b"Upgrade: websocket\r\nConnection: Upgrade\r\n", 400),
        (b"GET /v1/models HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n", 400),
        (MODELS + HOST + b"Transfer-Encoding: gzip, chunked\r\n", 501),
        (MODELS + HOST + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", 501),
    ],
)
def test_a_head_that_others_may_read_differently_is_refused(
    shim: str, head: bytes, status: int
) -> None:
    found, _ = answered(shim, head + b"Connection: close\r\n\r\n0\r\n\r\n")

    assert found == status


@pytest.mark.parametrize(
    "head",
    [
        b"GET /healthz HTTP/1.1\r\nConnection: close\r\n",
        b"GET /v1/models HTTP/1.0\r\n",
        b"GET /healthz HTTP/1.0\r\n",
        MODELS + HOST + b"Connection: close\r\nTransfer-Encoding: Chunked\r\n",
    ],
)
def test_a_probe_and_an_old_client_need_no_host(shim: str, head: bytes) -> None:
    with closing(connection(shim)) as line:
        line.sendall(head + b"\r\n" + b"0\r\n\r\n" * (b"Chunked" in head))
        received = answer(line)

    assert received.split()[1] == b"200"


def test_a_head_within_the_bounds_is_served(shim: str) -> None:
    head = GET + b"X-Long: " + b"x" * 60_000 + b"\r\n" + b"X: y\r\n" * 97
    with closing(connection(shim)) as line:
        line.sendall(head + b"Connection: close\r\n\r\n")

        assert answer(line).startswith(b"HTTP/1.1 200 ")


def test_a_slow_head_is_a_408_and_a_silent_connection_is_closed(shim: str) -> None:
    with closing(connection(shim)) as silent:
        assert answered(shim, GET) == (408, "head_too_slow")
        assert answer(silent) == b""


def test_a_slow_body_is_a_408_in_the_words_of_its_surface(shim: str) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000\r\n"
    with closing(connection(shim)) as line:
        line.sendall(head + b"Content-Type: application/json\r\n\r\n{")
        received = answer(line)

    assert received.startswith(b"HTTP/1.1 408 ")
    assert json.loads(received.partition(b"\r\n\r\n")[2])["error"]["code"] == "body_too_slow"


def test_trailers_do_not_become_headers(shim: str) -> None:
    body = json.dumps(CHAT).encode()
    with closing(connection(shim)) as line:
        line.sendall(
            b"POST /api/v1/jobs/chat HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            b"Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"%x\r\n%s\r\n0\r\nContent-Type: application/json\r\n\r\n" % (len(body), body)
        )

        assert answer(line).startswith(b"HTTP/1.1 415 ")


def test_a_connection_too_many_is_a_503_and_probes_are_served(shim: str) -> None:
    lines = [connection(shim) for _ in range(8)]
    try:
        for line in lines:
            line.sendall(GET)
        refused = httpx.get(f"{shim}/v1/models")
        probed = httpx.get(f"{shim}/healthz")
    finally:
        for line in lines:
            line.close()

    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert refused.json()["error"]["code"] == "too_many_connections"
    assert probed.status_code == 200
    assert _until_served(shim)
    assert 'refused_connections_total{reason="too_many"}' in httpx.get(f"{shim}/metrics").text


def _until_served(shim: str) -> bool:
    give_up_at = time.monotonic() + 10
    while httpx.get(f"{shim}/v1/models").status_code != 200:
        assert time.monotonic() < give_up_at
        time.sleep(0.05)
    return True


def test_many_pipelined_requests_end_their_connection(shim: str) -> None:
    with closing(connection(shim)) as line:
        line.sendall((GET + b"\r\n") * 5000)

        assert answer(line).count(b"HTTP/1.1 200") < 100


def test_a_head_that_came_at_once_is_refused_once_and_its_client_reads_why(shim: str) -> None:
    before = _refused(shim)
    for _ in range(8):
        with closing(connection(shim)) as line:
            line.sendall(GET + b"X: y\r\n" * 30_000)
            received = line.recv(65536)  # no reset comes before it
            received += answer(line)

        assert received.count(b"HTTP/1.1 431") == 1
    assert _refused(shim) == before + 8


def _refused(shim: str) -> float:
    """Heads that the shim has counted as too large."""
    lines = httpx.get(f"{shim}/metrics", timeout=10).text.splitlines()
    name = 'llmfleet_process_refused_connections_total{reason="head_too_large"}'
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))
