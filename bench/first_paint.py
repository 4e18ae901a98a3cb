"""How soon the page shows something, on loopback, with ten thousand jobs and two hundred models.

    python -m bench.first_paint [JOBS] [MODELS]

Each of five visits has an empty cache. Times are from the start of a navigation: the first paint,
the first state of the fleet, the first rows of the list of jobs, and all models; then the longest
frame while the list is scrolled. Needs Chromium (`make browser`).
"""

import asyncio
import shutil
import sys
import tempfile
from pathlib import Path
from statistics import median
from threading import Thread
from typing import Any, Final

from playwright.sync_api import Browser, sync_playwright
from pydantic import SecretStr

from bench.processes import environment, redis, started, wait_for
from contract.chat import ChatRequest, Message
from contract.roster import BackendReport, ModelReport, QueueReport, WorkerReport
from fleet.local.process import commands
from fleet.local.redis_server import free_port
from relay.connection import Connection
from relay.queue import Queue
from relay.roster import RosterStore
from relay.settings import RelaySettings

JOBS, MODELS, VISITS, AT_ONCE = 10_000, 200, 5, 64
LIMIT_MS: Final = 1000.0
QUEUE: Final = "bench.chat"
_PAINT: Final = "performance.getEntriesByName('first-contentful-paint')[0].startTime"

_SCROLL: Final = """async () => {
  const list = document.querySelector('.list-scroll');
  let longest = 0;
  let last = performance.now();
  for (const until = last + 4000; last < until;) {
    list.scrollBy(0, 900);
    const now = await new Promise(requestAnimationFrame);
    longest = Math.max(longest, now - last);
    last = now;
  }
  return longest;
}"""
"""Scrolls through the list for four seconds, 900 pixels a frame, while it fetches its pages."""


def report(models: int) -> WorkerReport:
    """A worker that has this many models and takes no job."""
    backend = BackendReport(
        name="bench",
        type="scripted",
        endpoint="nowhere",
        healthy=True,
        capabilities=("chat",),
        models=tuple(ModelReport(name=f"model-{n}:7b", traits=("chat",)) for n in range(models)),
    )
    queue = QueueReport(name=QUEUE, kind="chat", slots=4, in_flight=0)
    return WorkerReport(
        v=1, name="bench-1", host="here", pid=1, started_at=0, backends=(backend,), queues=(queue,)
    )


async def filled(url: str, jobs: int) -> None:
    """Enqueue the jobs."""
    settings = RelaySettings(redis_url=SecretStr(url))
    async with Connection.open(settings) as connection:
        queue = Queue(connection)
        request = ChatRequest(model="model-1:7b", messages=(Message(role="user", content="hi"),))
        for _ in range(0, jobs, AT_ONCE):
            await asyncio.gather(*(queue.enqueue(request, queue=QUEUE) for _ in range(AT_ONCE)))


async def announced(url: str, models: int) -> None:
    """Report the worker; the report lives for 15 s."""
    async with Connection.open(RelaySettings(redis_url=SecretStr(url))) as connection:
        await RosterStore(connection).report(report(models))


def visit(browser: Browser, url: str, models: int) -> dict[str, float]:
    """One visit with an empty cache: milliseconds to what is on the page."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()

    def now() -> float:
        return float(page.evaluate("performance.now()"))

    page.goto(url)
    page.get_by_text("live", exact=True).wait_for()
    times = {"first paint": float(page.evaluate(_PAINT)), "state of the fleet": now()}
    page.goto(f"{url}#/jobs")
    begun = now()
    page.locator(".list-body .list-row").first.wait_for()
    times["list of jobs"] = now() - begun
    times["longest frame of a scroll"] = float(page.evaluate(_SCROLL))
    page.goto(f"{url}#/backends/bench")
    begun = now()
    page.get_by_role("button", name=f"Show all {models} models").click()
    page.get_by_text(f"model-{models - 1}:7b", exact=True).wait_for()
    times["all models"] = now() - begun
    context.close()
    return times


def main(*words: str) -> int:
    """Print the medians; the exit code is 1 if the first paint is too late."""
    jobs, models = (*map(int, words), *(JOBS, MODELS)[len(words) :])
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    port = free_port()
    with tempfile.TemporaryDirectory() as place, redis(Path(place) / "redis") as (url, _):
        variables = environment(FLEET_REDIS_URL=url, FLEET_PORT=str(port))
        with started("shim", commands()["shim"], variables, Path(place)) as shim:
            wait_for(shim, port, "/healthz")
            asyncio.run(filled(url, jobs))
            times = _visits(chromium, f"http://127.0.0.1:{port}/", url, models)
    middle = {name: median(each[name] for each in times) for name in times[0]}
    for name, value in middle.items():
        print(f"{name:<26} {value:6.0f} ms")
    return int(middle["first paint"] > LIMIT_MS)


def _visits(chromium: str | None, page: str, redis_url: str, models: int) -> list[dict[str, float]]:
    found: list[dict[str, Any]] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for _ in range(VISITS):
            # Playwright holds the event loop of this thread.
            reporting = Thread(target=asyncio.run, args=(announced(redis_url, models),))
            reporting.start()
            reporting.join()
            found.append(visit(browser, page, models))
        browser.close()
    return found


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
