"""A fleet behind each proxy: a shim with keys, a worker on the scripted backend, nginx or Caddy."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.behind import Behind
from support.front_proxy import LANGUAGES, front
from support.keys import Keyed, keyed
from support.processes import WorkerProcess, worker
from support.redis_server import RedisServer
from support.relay import relay_on


@pytest.fixture(scope="session")
def behind_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("behind")


@pytest.fixture(scope="session")
def fleet(behind_folder: Path) -> Iterator[tuple[Keyed, RedisServer]]:
    """One shim and worker for both proxies."""
    redis = RedisServer(behind_folder)
    try:
        with keyed(redis.url, keepalive_s=1) as shim, worker(redis.url, behind_folder) as one:
            asyncio.run(_ready(redis.url, one))
            yield shim, redis
    finally:
        redis.stop()


async def _ready(url: str, one: WorkerProcess) -> None:
    async with relay_on(url) as relay:
        await one.ready(relay)


@pytest.fixture(scope="session", params=LANGUAGES)
def behind(request: pytest.FixtureRequest, fleet: tuple[Keyed, RedisServer]) -> Iterator[Behind]:
    """The fleet behind each proxy."""
    shim, redis = fleet
    with (
        front(request.param, shim.url.removeprefix("http://")) as made,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("SSL_CERT_FILE", str(made.authority))  # for WebSockets
        yield Behind(shim, made, redis.url)
