"""A fleet that a browser looks at, and pages of it for the tests of the page."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from support.processes import WorkerProcess

SLOW_STORY = "scripted-story:chunks=400,rate=25"
FAILS = "scripted-story:fail=body"
MODELS = (SLOW_STORY, FAILS, "scripted-story:chunks=40,rate=40", "scripted-think:think=8,chunks=8")
PULLED = {"FLEET_LEASE_S": "2", "FLEET_RENEW_S": "0.5", "FLEET_REAP_S": "0.5"}
"""A job of a worker that was killed is handed over within seconds."""
WIDE = {"width": 1440, "height": 900}
HIDE, SEE = (
    f"""Object.defineProperty(document, 'hidden', {{ value: {hidden}, configurable: true }});
    document.dispatchEvent(new Event('visibilitychange'))"""
    for hidden in ("true", "false")
)
"""Make a page think that its tab is hidden, or seen."""
MARKUP = "<img src=x onerror=\"document.title='owned'\"> <b>bold</b>"


@dataclass
class Watched:
    """The fleet that the page shows."""

    url: str
    key: str
    workers: list[WorkerProcess]
    http: httpx.Client
    start_worker: Callable[[], WorkerProcess]
    redis_url: str
    problems: list[str] = field(default_factory=list)
    """What a page printed that is wrong."""

    def enqueue(self, kind: str = "chat", **body: Any) -> str:
        given = {"model": SLOW_STORY, "backend": "box", **body}
        if kind == "chat" and "messages" not in given:
            given["messages"] = [{"role": "user", "content": "hello"}]
        answer = self.http.post(f"/api/v1/jobs/{kind}", json=given)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def until(self, job: str, *statuses: str) -> dict[str, Any]:
        give_up_at = time.monotonic() + 40
        while True:
            record: dict[str, Any] = self.http.get(f"/api/v1/jobs/{job}").json()
            if record["status"] in statuses:
                return record
            assert time.monotonic() < give_up_at, record
            time.sleep(0.05)


class opened:  # noqa: N801 - reads as a function
    """A page of its own context, signed in unless `key` is empty."""

    def __init__(
        self, watched: Watched, chromium: Any, key: str | None = None, **options: Any
    ) -> None:
        self._watched, self._key = watched, watched.key if key is None else key
        self._context = chromium.new_context(**{"viewport": WIDE, **options})
        self._context.set_default_timeout(15_000)

    def __enter__(self) -> Any:
        script = f"sessionStorage.setItem('fleet.key', {json.dumps(self._key)})"
        if self._key:
            self._context.add_init_script(script)
        self._context.add_init_script(
            "document.addEventListener('securitypolicyviolation', (e) => "
            "console.error('policy', e.violatedDirective, e.blockedURI))"
        )
        page = self._context.new_page()
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self._watched.problems.append(str(error)))
        page.goto(self._watched.url)
        return page

    def _heard(self, message: Any) -> None:
        # A refused call is printed by the browser itself: some tests provoke one.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self._watched.problems.append(message.text)

    def __exit__(self, *_: object) -> None:
        self._context.close()
        problems, self._watched.problems = self._watched.problems, []
        assert problems == []


def show(page: Any, path: str, title: str) -> None:
    """Go to a view and wait for its heading."""
    page.goto(f"{page.url.split('#')[0]}#/{path}")
    page.get_by_role("heading", level=1, name=title).wait_for()
