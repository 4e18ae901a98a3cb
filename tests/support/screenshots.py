"""The pictures of the page in the documents: a fleet with scripted models under some load.

PYTHONPATH=tests python -m support.screenshots    # `make screenshots`
"""

import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from support.chromium import find
from support.fleet import scripted_server
from support.processes import worker
from support.redis_server import RedisServer
from support.shape import ROOT
from support.shim import serving

FOLDER: Final = ROOT / "docs" / "pictures"
LARGEST_BYTES: Final = 300_000
LOADED_S: Final = 150.0
"""How long the fleet works before pictures are taken, so that charts show something."""
STORY, LONG, THINK, FAILS = (
    "scripted-story:chunks=120,rate=25",
    "scripted-story:chunks=600,rate=20",
    "scripted-think:think=30,chunks=90,rate=25",
    "scripted-story:fail=body",
)
ASKED: Final = ("Why is the sky blue?", "Summarise Monday's minutes.", "A haiku about queues.")


@contextmanager
def fleet(folder: Path) -> Iterator[str]:
    """The address of a fleet with three backends."""
    with ExitStack() as stack:
        redis = RedisServer(folder)
        stack.callback(redis.stop)
        server = stack.enter_context(scripted_server((STORY, LONG, THINK, FAILS)))
        server = server.removeprefix("http://")
        url = stack.enter_context(serving(redis.url, data_dir=folder / "data"))
        dsns = {"box": f"ollama://{server}?slots=4", "gpu": f"vllm://{server}/v1?slots=16"}
        for name, dsn in {**dsns, "art": "scripted://"}.items():
            stack.enter_context(worker(redis.url, folder, name, **{f"LLM_{name.upper()}": dsn}))
        while len(httpx.get(f"{url}/api/v1/backends").json()["backends"]) < 3:
            time.sleep(0.2)
        yield url


@contextmanager
def load(url: str) -> Iterator[None]:
    """Jobs of several kinds, a little more than the fleet does."""
    dice, over = random.Random(4), threading.Event()

    def enqueue() -> None:
        with httpx.Client(base_url=url, timeout=30) as http:
            while not over.wait(dice.uniform(0.05, 0.9)):
                kind, body = _request(dice)
                http.post(f"/api/v1/jobs/{kind}", json=body)

    thread = threading.Thread(target=enqueue)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _request(dice: random.Random) -> tuple[str, dict[str, Any]]:
    messages = [{"role": "user", "content": dice.choice(ASKED)}]
    chance = dice.random()
    if chance < 0.45:
        priority = dice.choice(["interactive", "standard", "batch"])
        return "chat", {
            "model": STORY,
            "backend": "box",
            "messages": messages,
            "priority": priority,
        }
    if chance < 0.75:
        return "chat", {"model": THINK, "backend": "gpu", "messages": messages}
    if chance < 0.78:
        return "chat", {"model": FAILS, "backend": "box", "messages": messages, "max_attempts": 1}
    return "embed", {"model": "scripted-embed", "backend": "gpu", "input": ["one", "two"]}


class Camera:
    """Takes pictures of views."""

    def __init__(self, browser: Any, url: str) -> None:
        self._browser, self._url = browser, url

    def take(
        self,
        name: str,
        path: str,
        scheme: str,
        prepare: Callable[[Any], object] = lambda page: page.wait_for_timeout(1500),
        *,
        width: int = 1280,
        height: int = 800,
    ) -> None:
        context = self._browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme
        )
        page = context.new_page()
        page.goto(f"{self._url}/#/{path}")
        page.get_by_role("heading", level=1).wait_for()
        prepare(page)
        target = FOLDER / f"{name}.png"
        page.screenshot(path=target)
        context.close()
        assert target.stat().st_size <= LARGEST_BYTES, target


def ask(page: Any) -> None:
    page.get_by_role("combobox", name="Backend", exact=True).select_option("gpu")
    page.get_by_role("combobox", name="Model", exact=True).select_option(THINK)
    page.get_by_label("Message", exact=True).fill("Why is the sky blue?")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Send").wait_for()
    page.get_by_label("Message", exact=True).fill("And at dusk?")
    page.keyboard.press("Enter")
    page.wait_for_timeout(3500)


def long_job(url: str) -> str:
    """A job that speaks for half a minute."""
    body = {"model": LONG, "backend": "gpu", "messages": [{"role": "user", "content": ASKED[0]}]}
    return str(httpx.post(f"{url}/api/v1/jobs/chat", json=body).json()["id"])


def main() -> int:
    """Take all pictures."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - of the dev extra

    browser = find()
    if browser is None:
        sys.stderr.write("no Chromium: `make browser` gets it\n")
        return 1
    FOLDER.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as place,
        fleet(Path(place)) as url,
        load(url),
        sync_playwright() as playwright,
    ):
        launched = playwright.chromium.launch(
            executable_path=browser.path, args=["--no-sandbox"], env=browser.environment
        )
        camera = Camera(launched, url)
        time.sleep(LOADED_S)
        camera.take("overview-dark", "overview", "dark", lambda page: page.wait_for_timeout(40_000))
        camera.take("overview-light", "overview", "light", lambda p: p.wait_for_timeout(25_000))
        job = long_job(url)
        camera.take("job-light", f"jobs/{job}", "light", lambda page: page.wait_for_timeout(6000))
        camera.take("backends-light", "backends", "light")
        camera.take("playground-dark", "playground", "dark", ask)
        camera.take("jobs-phone", "jobs", "dark", width=390, height=800)
        launched.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
