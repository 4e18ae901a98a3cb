"""One fleet and one browser for all tests of the page: real processes, a scripted backend."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from support.chromium import browser
from support.fleet import scripted_server
from support.keys import bearer, issued
from support.page import MODELS, PULLED, Watched, opened
from support.processes import WorkerProcess, worker
from support.redis_server import RedisServer
from support.shim import serving


@pytest.fixture(scope="session")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    browser()  # skips before a fleet is started in vain
    folder = tmp_path_factory.mktemp("page")
    with ExitStack() as stack:
        redis = RedisServer(folder)
        stack.callback(redis.stop)
        server = stack.enter_context(scripted_server(MODELS)).removeprefix("http://")
        shim = serving(
            redis.url, data_dir=folder / "data", key_max_age_s=0.5, origins="http://localhost:*"
        )
        url = stack.enter_context(shim)
        key = issued(url, {}, tenant="boss", admin=True)["key"]

        def start(backend: str = "box", dsn: str = f"ollama://{server}?slots=8") -> WorkerProcess:
            env = {f"LLM_{backend.upper()}": dsn, **PULLED}
            return stack.enter_context(worker(redis.url, folder, backend, **env))

        workers = [start(), start("art", "scripted://")]
        http = stack.enter_context(httpx.Client(base_url=url, headers=bearer(key), timeout=30))
        _wait_for(http, {"box", "art"})
        yield Watched(url, key, workers, http, start, redis.url)


def _wait_for(http: httpx.Client, backends: set[str]) -> None:
    give_up_at = time.monotonic() + 60
    while True:
        told = http.get("/api/v1/backends").json()["backends"]
        if {each["name"] for each in told if each["healthy"]} == backends:
            return
        assert time.monotonic() < give_up_at, told
        time.sleep(0.05)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser; it ends with the module, because Playwright holds the thread's event loop."""
    playwright = pytest.importorskip("playwright.sync_api", reason="make dev installs it")
    found = browser()
    with playwright.sync_playwright() as running:
        launched = running.chromium.launch(
            executable_path=found.path, args=["--no-sandbox"], env=found.environment
        )
        yield launched
        launched.close()


@pytest.fixture
def page(watched: Watched, chromium: Any) -> Iterator[Any]:
    """A signed-in page; at the end it has printed no error and broken no policy."""
    with opened(watched, chromium) as found:
        yield found
