"""A shim listens on another address than loopback only with keys, or with the insecure setting."""

import asyncio
import os
import re
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx
import pytest
from support.keys import bearer, keyed
from support.redis_server import RedisServer, free_port
from support.shim import problem

EVERYWHERE = "0.0.0.0"


@pytest.fixture
def redis_url(own_redis: RedisServer) -> str:
    """Not the session's: its shim would take what the next test empties for a loss of keys."""
    return own_redis.url


@asynccontextmanager
async def started(
    redis_url: str, *options: str, **variables: str
) -> AsyncGenerator[tuple[Process, str]]:
    """The process, and what it had said when it was listening or had ended."""
    shim = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "api_shim", *options,
        env={**os.environ, "FLEET_REDIS_URL": redis_url, **variables}, stderr=PIPE, stdout=PIPE,
    )  # fmt: skip
    assert shim.stderr is not None
    said = b""
    try:
        async with asyncio.timeout(40):
            while not re.search(rb"running on", said) and (line := await shim.stderr.readline()):
                said += line
        yield shim, said.decode()
    finally:
        if shim.returncode is None:
            shim.terminate()
        await shim.communicate()


async def test_without_a_key_it_does_not_start_where_others_reach_it(redis_url: str) -> None:
    async with started(redis_url, "--host", EVERYWHERE, "--port", "0") as (shim, said):
        assert await shim.wait() == 1
        for words in ("fleet keys create", "--insecure", EVERYWHERE):
            assert words in said


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_on_loopback_it_starts_without_a_key(host: str, redis_url: str) -> None:
    async with started(redis_url, "--host", host, "--port", "0") as (shim, _):
        assert shim.returncode is None


async def test_with_the_insecure_setting_it_starts_anywhere(redis_url: str) -> None:
    port = str(free_port())
    async with started(redis_url, "--insecure", "--host", EVERYWHERE, "--port", port) as (shim, _):
        assert shim.returncode is None
        assert httpx.get(f"http://127.0.0.1:{port}/api/v1/jobs").status_code == 200


async def test_with_a_key_it_starts_anywhere_and_asks_for_it(redis_url: str) -> None:
    port = str(free_port())
    with keyed(redis_url) as fleet:
        async with started(redis_url, FLEET_HOST=EVERYWHERE, FLEET_PORT=port):
            jobs = f"http://127.0.0.1:{port}/api/v1/jobs"

            problem(httpx.get(jobs), 401, "not_authenticated")
            assert httpx.get(jobs, headers=bearer(fleet.key)).status_code == 200


async def test_when_it_cannot_know_it_starts_and_authenticates_no_client(nobody: str) -> None:
    port, nowhere = str(free_port()), f"redis://{nobody}/0"
    async with started(nowhere, "--host", EVERYWHERE, "--port", port) as (shim, said):
        answer = httpx.get(f"http://127.0.0.1:{port}/api/v1/jobs", timeout=20)

        assert shim.returncode is None
        assert "every request is refused" in said
        problem(answer, 503, "relay_unavailable")


async def test_it_makes_the_first_key_prints_it_once_and_asks_for_it(redis_url: str) -> None:
    asked = {"FLEET_FIRST_KEY": "true", "FLEET_HOST": EVERYWHERE}
    keys = []
    for _ in range(2):
        port = str(free_port())
        async with started(redis_url, "--port", port, **asked) as (shim, said):
            jobs = f"http://127.0.0.1:{port}/api/v1/jobs"
            problem(httpx.get(jobs), 401, "not_authenticated")
            assert "flk_" not in said
            shim.terminate()
            assert shim.stdout is not None
            keys.append(re.findall(r"flk_\S+", (await shim.stdout.read()).decode()))

    (first,), second = keys
    assert second == []
    async with started(redis_url, FLEET_HOST=EVERYWHERE, FLEET_PORT=(port := str(free_port()))):
        answer = httpx.get(f"http://127.0.0.1:{port}/api/v1/keys", headers=bearer(first))

    assert [each["tenant"] for each in answer.json()["keys"]] == ["admin"]


async def test_it_does_not_start_where_it_cannot_make_its_first_key(nobody: str) -> None:
    nowhere = f"redis://{nobody}/0"
    async with started(nowhere, "--port", "0", FLEET_FIRST_KEY="true") as (shim, said):
        assert await shim.wait() == 1
        assert "FLEET_FIRST_KEY" in said
