"""Fixtures of all tests: a real Redis-protocol server, and coroutine tests on uvloop."""

import asyncio
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop
from support.redis_server import RedisServer


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run `async def test_...` on a fresh uvloop."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(pyfuncitem.obj(**arguments))
    return True


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One real server a test session; do not restart this one, start your own."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> Iterator[str]:
    """The session's server, empty."""
    redis_server.say("FLUSHALL")
    yield redis_server.url
    redis_server.say("FLUSHALL")


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of this test's own, which it may restart."""
    server = RedisServer(tmp_path)
    yield server
    server.stop()
