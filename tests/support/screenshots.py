"""The pictures of the page in the documents: a fleet with scripted models under some load.

PYTHONPATH=tests python -m support.screenshots [NAME...]    # `make screenshots` takes all
"""

import json
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator
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


PRICES: Final = {"scripted-*": {"input": 2.5, "output": 10}}
TENANTS: Final[dict[str, dict[str, Any]]] = {
    "research": {"weight": 2, "limit_tokens_day": 40_000, "limit_spend_month": 50},
    "support": {"weight": 1, "limit_tokens_minute": 20_000},
}


@contextmanager
def fleet(folder: Path) -> Iterator[str]:
    """The address of a fleet with three backends."""
    with ExitStack() as stack:
        redis = RedisServer(folder)
        stack.callback(redis.stop)
        server = stack.enter_context(scripted_server((STORY, LONG, THINK, FAILS)))
        server = server.removeprefix("http://")
        url = stack.enter_context(serving(redis.url, data_dir=folder / "data", prices=PRICES))
        dsns = {"box": f"ollama://{server}?slots=4", "gpu": f"vllm://{server}/v1?slots=16"}
        for name, dsn in {**dsns, "art": "scripted://"}.items():
            stack.enter_context(worker(redis.url, folder, name, **{f"LLM_{name.upper()}": dsn}))
        while len(httpx.get(f"{url}/api/v1/backends").json()["backends"]) < 3:
            time.sleep(0.2)
        yield url


def keys(url: str) -> dict[str, str]:
    """A key of an admin, and one of each tenant, by name."""
    found: dict[str, str] = {}
    for tenant, limits in {"ops": {"admin": True}, **TENANTS}.items():
        headers = {"X-Api-Key": found["ops"]} if found else {}
        body = {"tenant": tenant, **limits}
        found[tenant] = httpx.post(f"{url}/api/v1/keys", json=body, headers=headers).json()["key"]
    return found


def later(http: httpx.Client) -> None:
    """What the view of schedules shows."""
    night = time.time() // 86400 * 86400 + 86400 + 22 * 3600
    chat = {"model": STORY, "backend": "box", "messages": [{"role": "user", "content": ASKED[1]}]}
    for at in (night, night + 1800):
        http.post("/api/v1/jobs/chat", json={**chat, "not_before": at})
    embed = {"model": "scripted-embed", "backend": "gpu", "input": ["one"], "not_before": night}
    parent = http.post("/api/v1/jobs/embed", json=embed).json()["id"]
    http.post("/api/v1/jobs/chat", json={**chat, "after": [parent]})
    night_only = {"windows": ["mon-fri 22:00-06:00 Europe/Berlin"]}
    http.put("/api/v1/queues/box.embed/windows", json=night_only)
    http.post("/api/v1/queues/art.image/pause", json={"reason": "new cards"})


@contextmanager
def load(url: str, found: dict[str, str]) -> Iterator[None]:
    """Jobs of several kinds, a little more than the fleet does."""
    dice, over = random.Random(4), threading.Event()

    def enqueue() -> None:
        with httpx.Client(base_url=url, timeout=30) as http:
            while not over.wait(dice.uniform(0.05, 0.9)):
                kind, body = _request(dice)
                headers = {"X-Api-Key": found[dice.choice(["research", "support", "support"])]}
                http.post(f"/api/v1/jobs/{kind}", json=body, headers=headers)

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

    def __init__(self, browser: Any, url: str, key: str, wanted: Collection[str]) -> None:
        self._browser, self._url, self._key, self._wanted = browser, url, key, wanted

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
        if self._wanted and name not in self._wanted:
            return
        context = self._browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme
        )
        context.add_init_script(f"sessionStorage.setItem('fleet.key', {json.dumps(self._key)})")
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


def long_job(http: httpx.Client) -> str:
    """A job that speaks for half a minute."""
    body = {"model": LONG, "backend": "gpu", "messages": [{"role": "user", "content": ASKED[0]}]}
    return str(http.post("/api/v1/jobs/chat", json=body).json()["id"])


def main(wanted: Collection[str] = ()) -> int:
    """Take pictures, all unless some are wanted by name."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - of the dev extra

    browser = find()
    if browser is None:
        sys.stderr.write("no Chromium: `make browser` gets it\n")
        return 1
    FOLDER.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as place,
        fleet(Path(place)) as url,
        load(url, found := keys(url)),
        httpx.Client(base_url=url, headers={"X-Api-Key": found["ops"]}, timeout=30) as http,
        sync_playwright() as playwright,
    ):
        launched = playwright.chromium.launch(
            executable_path=browser.path, args=["--no-sandbox"], env=browser.environment
        )
        camera = Camera(launched, url, found["ops"], wanted)
        later(http)
        time.sleep(LOADED_S)
        camera.take("overview-dark", "overview", "dark", lambda page: page.wait_for_timeout(40_000))
        camera.take("overview-light", "overview", "light", lambda p: p.wait_for_timeout(25_000))
        job = long_job(http)
        camera.take("job-light", f"jobs/{job}", "light", lambda page: page.wait_for_timeout(6000))
        camera.take("backends-light", "backends", "light")
        camera.take("queues-light", "queues", "light")
        camera.take("schedules-dark", "schedules", "dark")
        camera.take("tenants-light", "tenants", "light", height=1100)
        camera.take("playground-dark", "playground", "dark", ask)
        camera.take("jobs-phone", "jobs", "dark", width=390, height=800)
        launched.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
