"""Fixtures of all tests: a real Redis-protocol server, and coroutine tests on uvloop."""

import asyncio
import inspect
import signal
import socket
from collections.abc import Generator, Iterator
from functools import cache
from pathlib import Path

import httpx
import pytest
import uvloop
from hypothesis import settings
from support import orphans, time_limit
from support.redis_server import RedisServer

# An example has no time limit of its own: machines are shared, and performance lives in bench/.
settings.register_profile("shared machine", parent=settings.default, deadline=None)
settings.load_profile("shared machine")

SLOW = (
    "api_shim/http/test_listening.py",
    "api_shim/test_main.py",
    "api_shim/test_schemathesis.py",
    "clients/test_claude_code.py",
    "clients/test_codex.py",
    "clients/test_coding_agents.py",
    "clients/test_docs.py",
    "clients/test_llm.py",
    "clients/test_node.py",
    "clients/test_open_webui_server.py",
    "clients/test_openai_background.py",
    "clients/test_openai_batches.py",
    "e2e",
    "fleet/cli/test_terminal.py",
    "fleet/demo/test_demo.py",
    "fleet/embed/test_embed.py",
    "fleet/local/test_autoscaler.py",
    "fleet/local/test_membership.py",
    "fleet/local/test_up.py",
    "packaging",
    "page",
    "proxies",
    "workers/celery_pool",
)
"""Files and folders that start processes for every test; a single slow test is marked itself."""


def pytest_configure() -> None:
    """Let SIGINT interrupt what tests start, also where this process ignores it; watch them.

    A shell ignores it for its jobs in the background, and children inherit that.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    orphans.watch()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of SLOW as slow, for `make test-fast`."""
    tests = Path(__file__).parent
    slow = [tests / each for each in SLOW]
    gone = [str(each) for each in slow if not each.exists()]
    if gone:
        raise pytest.UsageError(f"SLOW in {__file__} names what is not there: {gone}")
    is_slow = cache(lambda path: any(path.is_relative_to(each) for each in slow))
    for item in items:
        if is_slow(item.path):
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(wrapper=True)
def pytest_timeout_set_timer(item: pytest.Item) -> Generator[None, object, object]:
    """A test's time limit ends it also while an event loop runs."""
    result = yield
    time_limit.harden(item)
    return result


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> None:
    time_limit.disarm(call)


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


@pytest.fixture(scope="session", autouse=True)
def httpx_for_tests() -> Iterator[None]:
    """Patience on a busy machine, and one TLS context, which costs each new client 20 ms."""
    with pytest.MonkeyPatch.context() as patch:
        at = "httpx._transports.default.create_ssl_context"
        patch.setattr(at, cache(httpx.create_ssl_context))
        for phase in ("connect", "read", "write", "pool"):
            patch.setattr(f"httpx._config.DEFAULT_TIMEOUT_CONFIG.{phase}", 60.0)
        yield


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One real server a test session; do not restart this one, start your own."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> Iterator[str]:
    """The session's server, empty."""
    assert redis_server.say("FLUSHALL") == b"+OK\r\n"
    yield redis_server.url
    redis_server.say("FLUSHALL")


@pytest.fixture(scope="session")
def nobody() -> Iterator[str]:
    """`host:port` where nobody listens, and which no other process gets meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of this test's own, which it may restart."""
    server = RedisServer(tmp_path)
    yield server
    server.stop()
