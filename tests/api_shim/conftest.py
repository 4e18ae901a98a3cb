"""One shim serves all tests that need no settings of their own."""

from collections.abc import Iterator

import pytest
from support.redis_server import RedisServer
from support.shim import serving


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server of these tests' own.

    A shim maintains the queues of its server while no worker is live, also between its tests: it
    would hand over the expired leases that a test of the relay waits for.
    """
    server = RedisServer(tmp_path_factory.mktemp("redis-of-shims"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def session_shim(redis_server: RedisServer) -> Iterator[str]:
    with serving(redis_server.url) as url:
        yield url


@pytest.fixture
def shim(session_shim: str, redis_url: str) -> str:
    """Address of a shim on an empty server."""
    return session_shim
