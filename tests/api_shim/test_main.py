"""The process: it starts, serves, and ends at once although streams are open."""

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from time import monotonic

import httpx
import pytest
from support.proxy import proxy_to
from support.redis_server import RedisServer, free_port
from support.relay import relay_on
from support.shim import Stage, serving, sse
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from api_shim.__main__ import server_of
from api_shim.settings import ShimSettings


@asynccontextmanager
async def process(redis_url: str, **env: str) -> AsyncGenerator[tuple[Process, str]]:
    port = free_port()
    shim = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "api_shim", "--port", str(port),
        env={**os.environ, "FLEET_REDIS_URL": redis_url, **env}, stderr=PIPE,
    )  # fmt: skip
    assert shim.stderr is not None
    try:
        async with asyncio.timeout(20):
            while not re.search(rb"running on", await shim.stderr.readline()):
                assert shim.returncode is None
        yield shim, f"http://127.0.0.1:{port}"
    finally:
        if shim.returncode is None:
            shim.kill()
        await shim.communicate()


async def test_ctrl_c_ends_it_as_sigterm_does_also_if_it_comes_doubled(redis_url: str) -> None:
    # `timeout -s INT` signals the process, and then its group.
    async with (
        relay_on(redis_url) as relay,
        process(redis_url) as (shim, url),
        httpx.AsyncClient(base_url=url) as http,
    ):
        async with Stage(http, relay).events(await relay.enqueue()) as response:
            events = sse(response)
            await anext(events)
            for _ in range(2):
                shim.send_signal(signal.SIGINT)
                await asyncio.sleep(0.01)
            async for _ in events:
                pass
        assert shim.stderr is not None
        said = await shim.stderr.read()

        assert (await shim.wait(), b"Traceback" in said) == (0, False)


def imports(library: str, pid: int) -> bool:
    return library in Path(f"/proc/{pid}/maps").read_text()


@pytest.mark.parametrize("program", ["api_shim", "workers"])
async def test_ctrl_c_while_it_imports_is_no_traceback(program: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as out:
        starting = await asyncio.create_subprocess_exec(
            sys.executable, "-m", program, stdout=out, stderr=out
        )
    async with asyncio.timeout(20):
        while not imports("pydantic_core", starting.pid):
            await asyncio.sleep(0.001)
    starting.send_signal(signal.SIGINT)

    assert await starting.wait() in {0, -signal.SIGINT}
    assert "Traceback" not in log.read_text()


async def test_on_sigterm_streams_end_at_once_and_the_exit_is_orderly(redis_url: str) -> None:
    async with (
        relay_on(redis_url) as relay,
        process(redis_url, FLEET_SHUTDOWN_S="60") as (shim, url),
        httpx.AsyncClient(base_url=url) as http,
    ):
        at = Stage(http, relay)
        async with at.events(await relay.enqueue()) as response:
            events = sse(response)
            await anext(events)
            shim.send_signal(signal.SIGTERM)
            asked_at = monotonic()
            rest = [event async for event in events]
        code = await shim.wait()

        assert rest == []
        assert code == 0
        assert monotonic() - asked_at < 10


async def read_slowly(pieces: AsyncGenerator[bytes, None]) -> None:
    """A reader who would take 20 s for what the test has stored."""
    async for _ in pieces:
        await asyncio.sleep(0.02)


async def test_on_sigterm_a_download_ends_at_once(redis_url: str, tmp_path: Path) -> None:
    env = {"FLEET_DATA_DIR": str(tmp_path), "FLEET_SHUTDOWN_S": "60"}
    async with (
        process(redis_url, **env) as (shim, url),
        httpx.AsyncClient(base_url=url, timeout=20) as http,
    ):
        form = {"data": {"purpose": "user_data"}, "files": {"file": b"x" * 64 * 2**20}}
        file = (await http.post("/v1/files", **form)).json()
        async with http.stream("GET", f"/v1/files/{file['id']}/content") as response:
            pieces = response.aiter_raw(2**16)
            await anext(pieces)
            shim.send_signal(signal.SIGTERM)
            asked_at = monotonic()
            with pytest.raises(httpx.RemoteProtocolError, match="without sending complete"):
                await read_slowly(pieces)
        code = await shim.wait()

        assert code == 0
        assert monotonic() - asked_at < 10


@pytest.mark.parametrize("path", ["/api/v1/jobs/" + "0" * 32, "/v1/models"])
async def test_what_waits_for_redis_at_the_end_may_be_asked_again(
    own_redis: RedisServer, path: str
) -> None:
    async with (
        proxy_to(own_redis.port) as proxy,
        process(proxy.redis_url, FLEET_SHUTDOWN_S="1") as (shim, url),
        httpx.AsyncClient(base_url=url, timeout=10) as http,
    ):
        proxy.swallow()
        host, port = url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
        await http.get("/healthz")  # the request before it is in good hands by then
        shim.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            answer = (await reader.read()).decode().lower()
        writer.close()

        assert answer.startswith("http/1.1 503")
        assert "retry-after: 1\r\n" in answer
        assert "relay_unavailable" in answer


async def test_a_socket_that_waits_for_redis_at_the_end_is_closed_with_a_code(
    own_redis: RedisServer,
) -> None:
    async with (
        proxy_to(own_redis.port) as proxy,
        process(proxy.redis_url, FLEET_SHUTDOWN_S="1") as (shim, url),
    ):
        proxy.swallow()
        path = f"/api/v1/jobs/{'0' * 32}/events"
        connecting = asyncio.create_task(
            connect(url.replace("http", "ws", 1) + path, proxy=None).__aenter__()
        )
        async with httpx.AsyncClient(base_url=url, timeout=10) as http:
            await http.get("/healthz")  # the handshake before it is in good hands by then
        shim.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            line = await connecting
            with suppress(ConnectionClosed):
                await line.recv()

        assert line.close_code in {1012, 4503}
        assert "the shim restarts" in (line.close_reason or "")


def test_an_idle_connection_outlives_what_clients_and_proxies_keep() -> None:
    """Or they send a request into a connection that is just closing, and get no answer."""
    proxies_s = 60

    assert server_of(ShimSettings.model_construct()).config.timeout_keep_alive > proxies_s


async def test_an_idle_connection_is_closed_in_the_end(redis_url: str) -> None:
    with serving(redis_url, connection_idle_s=1) as url:
        host, port = url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        async with asyncio.timeout(10):
            told = await reader.read()
        writer.close()

        assert told.startswith(b"HTTP/1.1 200")
