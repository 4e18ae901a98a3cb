"""Following over a WebSocket: the same events, one a frame, and a close code with the reason."""

import json
from contextlib import suppress
from typing import Any

import pytest
from support.redis_server import RedisServer
from support.shim import eventually, followers, serving, stage
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from contract.events import Delta


def socket(shim: str, job: str, query: str = "") -> connect:
    return connect(f"{shim.replace('http', 'ws', 1)}/api/v1/jobs/{job}/events{query}", proxy=None)


async def closed(line: ClientConnection) -> tuple[int, str]:
    """Read to the end; code and reason of the close."""
    with suppress(ConnectionClosed):
        async for _ in line:
            pass
    return line.close_code or 0, line.close_reason or ""


async def told(line: ClientConnection) -> list[dict[str, Any]]:
    return [event async for text in line if "id" in (event := json.loads(text))]


async def test_a_socket_sends_what_the_stream_sends_and_closes_with_1000(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        job = await at.relay.enqueue()
        async with socket(shim, job) as line:
            await at.relay.run(await at.relay.claim(), Delta(content="🦜"), Delta(content="b"))
            heard = await told(line)

            assert heard == await at.heard(job)
            assert line.close_code == 1000


async def test_a_socket_resumes_after_its_cursor(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        job = await at.relay.enqueue()
        await at.relay.run(await at.relay.claim(), Delta(content="a"), Delta(content="b"))
        whole = await at.heard(job)
        for seen, event in enumerate(whole, start=1):
            async with socket(shim, job, f"?after={event['id']}") as line:
                assert await told(line) == whole[seen:]
                assert line.close_code == 1000


@pytest.mark.parametrize(
    ("job", "query", "code", "why"),
    [
        ("0" * 32, "", 4404, "job_not_found"),
        ("nonsense", "", 4404, "job_not_found"),
        ("0" * 32, "?after=x", 4400, "invalid_cursor"),
    ],
)
async def test_a_refused_socket_closes_with_the_reason(
    job: str, query: str, code: int, why: str, shim: str
) -> None:
    async with socket(shim, job, query) as line:
        got, reason = await closed(line)

        assert (got, reason.partition(":")[0]) == (code, why)


async def test_what_a_client_sends_is_ignored_and_its_disconnect_noticed(
    shim: str, redis_url: str, redis_server: RedisServer
) -> None:
    async with stage(shim, redis_url) as at:
        job = await at.relay.enqueue()
        async with socket(shim, job) as line:
            await line.send("hello?")
            await line.send(b"\x00")
            attempt_log = at.relay.attempt_log(await at.relay.claim())
            attempt_log.append(Delta(content="still here"))
            while "still here" not in str(await line.recv()):
                pass
        await eventually(lambda: followers(redis_server, job) == 0)


async def test_a_shim_that_stops_closes_sockets_with_1012(redis_url: str) -> None:
    with serving(redis_url) as shim:
        async with stage(shim, redis_url) as at:
            line = await socket(shim, await at.relay.enqueue())
            await line.recv()
    assert (await closed(line))[0] == 1012
