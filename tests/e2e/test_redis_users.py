"""A fleet whose shim, worker and operator are users of least rights lacks none of them.

Subjects: relay/access/redis_users.py.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from redis import Redis
from support.batches import echo, jsonl
from support.processes import WorkerProcess
from support.redis_server import RedisServer
from support.redis_users import ADMIN, SHIM, WORKER, as_user, server_options
from support.shims import ShimProcess

QUICK = {
    "FLEET_LEASE_S": "2", "FLEET_RENEW_S": "0.5", "FLEET_REAP_S": "0.5",
    "FLEET_COMPACT_AFTER_S": "0.5", "FLEET_METRICS_PORT": "0",
}  # fmt: skip
WORDS = [{"role": "user", "content": "tell"}]
CHAT = {"model": "scripted-story:chunks=5", "backend": "scripted", "messages": WORDS}


class Operator:
    """What a fleet's callers and operator do, over HTTP."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def ask(self, method: str, path: str, **options: Any) -> Any:
        answer = await self.http.request(method, path, **options)
        assert answer.is_success, (method, path, answer.status_code, answer.text)
        return answer.json() if "json" in answer.headers["content-type"] else answer.text

    async def job(self, kind: str = "chat", **fields: Any) -> str:
        body = (CHAT if kind == "chat" else {"backend": "scripted"}) | fields
        told = await self.ask("POST", f"/api/v1/jobs/{kind}", json=body)
        return str(told["id"])

    async def end_of(self, job: str) -> str:
        told = await self.ask("GET", f"/api/v1/jobs/{job}?wait_s=40")
        return str(told["status"])

    async def until(self, path: str, is_so: Any) -> Any:
        async with asyncio.timeout(40):
            while not is_so(told := await self.ask("GET", path)):
                await asyncio.sleep(0.1)
        return told


@asynccontextmanager
async def guarded(folder: Path) -> AsyncGenerator[tuple[RedisServer, Operator, WorkerProcess]]:
    """A server on which only our users exist, a shim and a worker."""
    redis = RedisServer(folder, *server_options(folder, with_default=False))
    processes: list[Any] = []
    try:
        shim_url, worker_url = as_user(redis.url, SHIM), as_user(redis.url, WORKER)
        one = WorkerProcess(worker_url, folder, **QUICK)
        processes.append(one)
        shim = await asyncio.to_thread(ShimProcess, shim_url, folder, **QUICK)
        processes.append(shim)
        async with httpx.AsyncClient(base_url=shim.url, timeout=60) as http:
            operator = Operator(http)
            await operator.until("/api/v1/backends", _are_healthy)
            yield redis, operator, one
    finally:
        for each in processes:
            each.end()
        redis.stop()


def _are_healthy(told: Any) -> bool:
    return any(each["healthy"] for each in told["backends"])


def refused(redis: RedisServer) -> list[Any]:
    """What the server has refused to our users."""
    with Redis(port=redis.port, username=ADMIN, password=ADMIN) as line:
        found: list[Any] = line.acl_log()
    return [(each["username"], each["reason"], each["object"]) for each in found]


async def test_callers_and_operators_miss_no_right(tmp_path: Path) -> None:
    async with guarded(tmp_path) as (redis, on, _):
        embedding = {"model": "scripted-embed", "input": ["a", "b"]}
        ends = [
            await on.end_of(await on.job()),
            await on.end_of(await on.job("embed", **embedding)),
            await on.end_of(await on.job("pull", model="scripted-story")),
            await on.end_of(await on.job(conversation="c", conversation_policy="queue")),
            await on.end_of(await on.job(after=[await on.job(not_before=1)])),
        ]
        endless = await on.job(model="scripted-story:chunks=9999,rate=20")
        await on.ask("DELETE", f"/api/v1/jobs/{endless}")
        failing = await on.job(model="scripted-story:fail=error", max_attempts=1)
        ends += [await on.end_of(endless), await on.end_of(failing)]
        await on.ask("POST", f"/api/v1/jobs/{failing}/retry")
        once = [
            await on.ask("POST", "/api/v1/jobs/chat", json=CHAT, headers={"Idempotency-Key": "k"})
            for _ in range(2)
        ]
        alias = {"model": "scripted-echo", "backend": "scripted", "fallbacks": [CHAT["model"]]}
        await on.ask("PUT", "/api/v1/aliases/quick", json=alias)
        answer = await on.ask(
            "POST", "/v1/chat/completions", json={"model": "quick", "messages": WORDS}
        )
        await on.ask("POST", "/api/v1/queues/scripted.chat/pause", json={"reason": "x"})
        await on.ask("POST", "/api/v1/queues/scripted.chat/resume")
        for path in (
            "jobs", "dead", "dead/messages", "workers", "models", "queues", "overview", "usage",
            "usage/limits", "keys", "aliases", f"jobs/{endless}/request",
        ):  # fmt: skip
            await on.ask("GET", f"/api/v1/{path}")
        await on.ask("GET", "/metrics")
        await on.until("/api/v1/usage", lambda told: told["rows"] or told.get("total"))
        key = await on.ask("POST", "/api/v1/keys", json={"tenant": "me", "admin": True})

        assert ends == ["done"] * 5 + ["cancelled", "failed"]
        assert once[0]["id"] == once[1]["id"]
        assert answer["choices"][0]["message"]["content"] == "tell"
        assert key["key"].startswith("flk_")
        assert refused(redis) == []


async def test_batches_hand_overs_and_celerys_control_miss_none(tmp_path: Path) -> None:
    async with guarded(tmp_path) as (redis, on, first):
        form = {"files": {"file": ("in.jsonl", jsonl(echo(n) for n in range(5)))}}
        file = await on.ask("POST", "/v1/files", data={"purpose": "batch"}, **form)
        batch = await on.ask(
            "POST", "/v1/batches",
            json={
                "input_file_id": file["id"], "endpoint": "/v1/chat/completions",
                "completion_window": "24h",
            },
        )  # fmt: skip
        done = await on.until(f"/v1/batches/{batch['id']}", lambda told: told["completed_at"])
        await on.ask("DELETE", f"/v1/files/{file['id']}")
        job = await on.job(model="scripted-story:chunks=30,rate=20")
        await on.until(f"/api/v1/jobs/{job}", lambda told: told["status"] == "running")
        second = WorkerProcess(as_user(redis.url, WORKER), tmp_path, **QUICK)
        try:
            first.send(signal.SIGKILL)
            handed_over = await on.end_of(job)
            control = await asyncio.to_thread(_control, as_user(redis.url, ADMIN))
        finally:
            second.end()

        assert done["request_counts"]["completed"] == 5
        assert handed_over == "done"
        assert "pong" in control
        assert refused(redis) == []


def _control(url: str) -> str:
    words = ["-m", "celery", "-A", "workers.app", "inspect", "ping", "--json"]
    ran = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "FLEET_REDIS_URL": url, "FLEET_WORKER_BACKEND": "scripted"},
    )  # fmt: skip
    return json.dumps(ran.stdout) + ran.stderr
