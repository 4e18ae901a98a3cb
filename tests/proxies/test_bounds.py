"""What nginx and Caddy refuse, set up as docs/hardening.md says, and that it fits the shim's."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    contextmanager,
    suppress,
)

import httpx
import pytest
from support.behind import Behind
from support.front_proxy import LANGUAGES, documented, front
from support.proxy import proxy_to

from api_shim.settings import ShimSettings

DEFAULTS = ShimSettings()
TOO_LARGE = {"nginx": 400, "caddy": 431}
MANY_STREAMS = 200
"""Of one address, through nginx."""
CHAT = {"model": "scripted-story:chunks=3", "messages": [{"role": "user", "content": "x"}]}


NGINX = pytest.mark.parametrize("behind", ["nginx"], indirect=True)
"""Caddy has no bound on an address; the firewall has."""
SIZES = {"nginx": "client_max_body_size", "caddy": "max_size"}
SHORTER = {
    "nginx": {"proxy_read_timeout 3600s": "proxy_read_timeout 3s"},
    "caddy": {"read_body 15m": "read_body 3s"},
}


@contextmanager
def changed(behind: Behind, changes: Mapping[str, str]) -> Iterator[Behind]:
    """The same shim behind another proxy, with something else in what is documented."""
    host = behind.shim.url.removeprefix("http://")
    with front(behind.front.name, host, changes) as made:
        yield behind._replace(front=made)


def impatient(behind: Behind) -> AbstractContextManager[Behind]:
    """The same shim behind a proxy that waits for seconds instead of minutes."""
    return changed(behind, SHORTER[behind.front.name])


def setting(name: str, word: str) -> str:
    """The value behind a word of a documented configuration."""
    (found,) = set(
        re.findall(rf"^\s*{word} (\S+?);?(?:\s|$)", documented(LANGUAGES[name]), re.MULTILINE)
    )
    return str(found)


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


@pytest.mark.parametrize(
    ("name", "word"),
    [("nginx", "keepalive_timeout"), ("caddy", "keepalive"), ("caddy", "idle")],
)
def test_a_proxy_drops_an_idle_connection_before_the_shim_does(name: str, word: str) -> None:
    assert seconds(setting(name, word)) <= DEFAULTS.connection_idle_s - 10


def test_nginx_waits_for_longer_than_any_silence_of_a_shim() -> None:
    # The deadline of a chat whose request names none: what is not streamed may be silent so long.
    assert seconds(setting("nginx", "proxy_read_timeout")) >= 600 + 60
    assert seconds(setting("nginx", "proxy_read_timeout")) > 10 * DEFAULTS.keepalive_s
    assert seconds(setting("nginx", "send_timeout")) == DEFAULTS.write_timeout_s
    assert seconds(setting("nginx", "client_header_timeout")) == DEFAULTS.head_timeout_s
    assert seconds(setting("caddy", "read_header")) == DEFAULTS.head_timeout_s


async def test_a_silent_stream_outlives_every_bound_of_a_proxy(behind: Behind) -> None:
    slow = {**CHAT, "model": "scripted-story:chunks=3,first=7", "stream": True}
    with impatient(behind) as fast:
        async with (
            fast.client() as http,
            http.stream("POST", "/v1/chat/completions", json=slow) as response,
        ):
            text = (await response.aread()).decode()

    assert text.startswith(": ")  # a comment of SSE: the stream was silent
    assert text.endswith("data: [DONE]\n\n")


async def test_a_head_over_64_kib_is_refused_and_one_below_is_not(behind: Behind) -> None:
    async with behind.client() as http:
        answers = [
            await http.get("/healthz", headers={f"x-{n}": "a" * 15_000 for n in range(count)})
            for count in (3, 5)
        ]

        assert [each.status_code for each in answers] == [200, TOO_LARGE[behind.front.name]]


async def test_a_body_over_the_bound_is_refused_in_the_words_of_the_shim(behind: Behind) -> None:
    body = b" " * (DEFAULTS.max_body_bytes + 1)
    paths = ("/v1/chat/completions", "/api/v1/jobs/chat")
    told = [await refused(behind, path, body) for path in paths]

    assert [each.split()[1] for each in told] == [b"413", b"413"]
    assert all(b"FLEET_MAX_BODY_BYTES" in each for each in told)


def test_a_proxy_takes_the_largest_file_and_the_form_around_it() -> None:
    allowed = {setting("nginx", "client_max_body_size"), setting("caddy", "max_size")}

    assert allowed == {f"{DEFAULTS.max_file_bytes // 2**20 + 1}{unit}" for unit in ("m", "MiB")}


async def test_a_proxy_refuses_a_larger_body_itself(behind: Behind) -> None:
    size = setting(behind.front.name, SIZES[behind.front.name])
    with changed(behind, {size: size.replace("513", "1")}) as small:
        # A route that reads all of a body before it answers.
        told = await refused(small, "/v1/chat/completions", b" " * (2**20 + 1))

    assert told.split()[1] in {b"413", b"502"}  # that of Caddy before 2.7
    assert b"FLEET" not in told


async def refused(behind: Behind, path: str, body: bytes) -> bytes:
    """What a client is told that reads while it sends."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{behind.front.port}\r\n"
        f"Authorization: Bearer {behind.shim.key}\r\nContent-Length: {len(body)}\r\n"
        "Content-Type: application/json\r\n\r\n"
    )
    async with behind.raw() as (reader, writer), asyncio.timeout(20):
        writer.write(head.encode() + body)
        told = await reader.readuntil(b"\r\n\r\n")
        with suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(2):
                while piece := await reader.read(2**16):
                    told += piece
        return told


async def test_slow_heads_and_bodies_are_cut(behind: Behind) -> None:
    began = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{behind.front.port}\r\n"
    rest = f"Authorization: Bearer {behind.shim.key}\r\nContent-Type: application/json\r\n"
    slow = {"head": began, "body": f"{began}{rest}Content-Length: 1000\r\n\r\n{{"}
    with impatient(behind) as fast:
        ends = await asyncio.gather(*(ended_s(fast, each) for each in slow.values()))

    assert all(2 < took_s < 25 for took_s in ends), ends


async def ended_s(behind: Behind, written: str) -> float:
    """Seconds until a connection ends on which only this is written."""
    async with behind.raw() as (reader, writer), asyncio.timeout(40):
        began = time.monotonic()
        writer.write(written.encode())
        with suppress(ConnectionError):
            await reader.read()
        return time.monotonic() - began


@NGINX
async def test_nginx_bounds_the_streams_of_an_address_and_of_no_other(behind: Behind) -> None:
    async with AsyncExitStack() as opened:
        one = await opened.enter_async_context(behind.client())
        other = await opened.enter_async_context(behind.client(address="127.0.0.3"))
        job = await long_job(one)
        for _ in range(MANY_STREAMS):
            assert (await opened.enter_async_context(events(one, job))).status_code == 200
            await asyncio.sleep(0.02)
        refused = await one.get("/healthz")
        admitted = await other.get("/healthz")
        await one.aclose()

    assert [refused.status_code, admitted.status_code] == [429, 200]


def events(http: httpx.AsyncClient, job: str) -> AbstractAsyncContextManager[httpx.Response]:
    return http.stream("GET", f"/api/v1/jobs/{job}/events")


async def long_job(http: httpx.AsyncClient) -> str:
    body = {**CHAT, "model": "scripted-story:chunks=600,rate=20"}
    leaving = {"X-Fleet-On-Disconnect": "cancel"}
    told = await http.post("/api/v1/jobs/chat", json=body, headers=leaving)
    return str(told.json()["id"])


@NGINX
async def test_nginx_bounds_the_rate_of_an_address_and_of_no_other(behind: Behind) -> None:
    async with behind.client(address="127.0.0.4") as one, behind.client(address="127.0.0.5") as two:
        answers = [await one.get("/healthz") for _ in range(1000)]
        other = await two.get("/healthz")
        seen = Counter(each.status_code for each in answers)

    assert set(seen) == {200, 429}
    assert seen[200] >= 200
    assert other.status_code == 200


async def test_connections_to_the_shim_are_kept(behind: Behind) -> None:
    port = int(behind.shim.url.rpartition(":")[2])
    async with proxy_to(port) as counting:
        made: set[int] = set()
        with front(behind.front.name, f"127.0.0.1:{counting.port}") as kept:
            for _ in range(20):
                async with behind._replace(front=kept).client() as http:
                    assert (await http.get("/api/v1/queues")).status_code == 200
                made |= {id(each) for each in counting.links}

    assert len(made) == 1
