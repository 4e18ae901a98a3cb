"""A fleet with the keys of an admin and two tenants, and what each of them has.

Everything that a tenant makes holds its secret: a word that no other tenant may ever read.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx
import requests
from support.fleet import fleet
from support.keys import bearer, issued
from support.up import wait_until

from fuzz.trouble import Trouble

ADMIN: Final = "boss"
TENANTS: Final = ("ann", "bob")
EVERYTHING: Final = (
    "chat", "embed", "rerank", "image", "files", "batches", "webhooks",
    "models:read", "models:write", "models:admin",
)  # fmt: skip
PAUSED: Final = "ollama.create"
"""The only queue at which requests are aimed that pause one."""
ALIAS: Final = "an-alias"
_IDS_KEPT: Final = 5000


@dataclass
class Caller:
    """A key, and what its tenant has."""

    name: str
    headers: dict[str, str]
    things: dict[str, str] = field(default_factory=dict)
    """The id of one thing of each sort, by the beginning of its path."""
    ids: dict[str, None] = field(default_factory=dict)
    """What no other tenant may read unless it has named it itself; the latest come last."""

    @property
    def secret(self) -> str:
        """A word in all that this tenant has made."""
        return f"secret-of-{self.name}-4f1c9d"

    @property
    def is_admin(self) -> bool:
        return self.name == ADMIN

    def own(self, id: str) -> None:
        """Remember that a thing is this tenant's."""
        self.ids[id] = None
        if len(self.ids) > _IDS_KEPT:
            del self.ids[next(iter(self.ids))]


@dataclass(frozen=True)
class Stage:
    """A running fleet and its callers, by name."""

    url: str
    callers: dict[str, Caller]
    session: requests.Session
    """Its connections are used again."""
    trouble: Trouble

    def other(self, caller: Caller) -> Caller:
        """A tenant that is not this caller's."""
        return self.callers[TENANTS[1] if caller.name == TENANTS[0] else TENANTS[0]]

    def ask(self, caller: Caller, method: str, path: str, **body: Any) -> Any:
        """Have a caller ask for something that it may do; the answer, if it is JSON."""
        answer = self.session.request(
            method, self.url + path, headers=caller.headers, timeout=30, **body
        )
        assert answer.ok, answer.text
        return answer.json() if answer.content else None

    def open_queue(self) -> None:
        """Let jobs of the queue start that requests may pause, so that none waits for ever."""
        queue, headers = f"{self.url}/api/v1/queues/{PAUSED}", self.callers[ADMIN].headers
        self.session.put(f"{queue}/windows", json={"windows": []}, headers=headers, timeout=30)
        self.session.post(f"{queue}/resume", headers=headers, timeout=30)

    def furnish(self) -> None:
        """Make one of everything for each caller, in place of what is there."""
        for caller in self.callers.values():
            with httpx.Client(base_url=self.url, headers=caller.headers, timeout=60) as http:
                caller.things = _made(http, caller)
            for id in caller.things.values():
                caller.own(id)


@contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    """A fleet with an Ollama and a scripted backend."""
    with (
        fleet(folder, "ollama", "scripted", key_max_age_s=0.2) as running,
        requests.Session() as session,
    ):
        boss = bearer(issued(running.url, {}, tenant=ADMIN, admin=True)["key"])
        callers = {ADMIN: Caller(ADMIN, boss)}
        for name in TENANTS:
            key = issued(running.url, boss, tenant=name, permissions=EVERYTHING)["key"]
            callers[name] = Caller(name, bearer(key))
        trouble = Trouble(running.workers)
        logging.getLogger().addHandler(trouble)
        at = Stage(running.url, callers, session, trouble)
        at.furnish()
        try:
            yield at
        finally:
            logging.getLogger().removeHandler(trouble)


def _made(http: httpx.Client, caller: Caller) -> dict[str, str]:
    said = caller.secret
    chat = {"model": "scripted-echo", "messages": [{"role": "user", "content": said}]}
    job = _id(http.post("/api/v1/jobs/chat", json={**chat, "metadata": {"note": said}}))
    dying = {**chat, "model": "scripted-story:fail=crash", "backend": "scripted", "max_attempts": 1}
    dead = _id(http.post("/api/v1/jobs/chat", json=dying))
    for each in (job, dead):
        wait_until(partial(_has_ended, http, each))
    file = _id(http.post("/v1/files", files={"file": (said, b"{}\n")}, data={"purpose": "batch"}))
    batch = {"input_file_id": file, "endpoint": "/v1/embeddings", "completion_window": "24h"}
    line = {"custom_id": said, "params": {**chat, "max_tokens": 3}}
    webhooks = http.get("/api/v1/webhooks").json()["webhooks"]
    for each in webhooks:
        http.delete(f"/api/v1/webhooks/{each['id']}").raise_for_status()
    things = {
        "/api/v1/jobs": job,
        "/api/v1/dead": dead,
        "/api/v1/webhooks": _id(
            http.post("/api/v1/webhooks", json={"url": f"https://fuzz.invalid/{said}"})
        ),
        "/v1/files": file,
        "/v1/batches": _id(http.post("/v1/batches", json={**batch, "metadata": {"note": said}})),
        "/v1/messages/batches": _id(http.post("/v1/messages/batches", json={"requests": [line]})),
        "/v1/messages": _id(http.post("/v1/messages", json={**chat, "max_tokens": 30})),
        "/v1/responses": _id(
            http.post("/v1/responses", json={"model": "scripted-echo", "input": said})
        ),
    }
    if caller.is_admin:
        things |= {"/v1/models": "scripted-echo", "/api/v1/queues": PAUSED}
        alias = {"model": "scripted-echo"}
        http.put(f"/api/v1/aliases/{ALIAS}", json=alias).raise_for_status()
        things["/api/v1/aliases"] = ALIAS
        things["/api/v1/keys"] = issued(str(http.base_url), caller.headers, tenant=said)["id"]
    return things


def _id(answer: httpx.Response) -> str:
    assert answer.is_success, answer.text
    told: dict[str, Any] = answer.json()
    return str(told["id"])


def _has_ended(http: httpx.Client, job: str) -> bool:
    return "ended_at" in http.get(f"/api/v1/jobs/{job}", params={"wait_s": 5}).json()
