"""A Redis whose memory is full locks nobody out: what frees memory, and what helps, works there.

A row for each route that changes anything. Those of `REFUSED` make something new, and are a 503
with its reason; all others are called while Redis takes no write that may need memory.

Subjects: api_shim/access/route_permissions.py, api_shim/tenants/tenant_eraser.py.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from support.batches import row
from support.dying import died
from support.keys import Keyed, keyed
from support.redis_server import RedisServer
from support.relay import QUEUE, Relay, relay_on
from support.shim import CHAT, Stage, problem

from api_shim.access.route_permissions import NEEDS
from api_shim.tenants import tenant_eraser
from contract import redis_keys
from contract.tenants import Tenant

MIB: Final = 2**20
HOOK: Final = {"url": "https://example.com/hooks"}
ALIAS: Final = {"model": "m"}
REFUSED: Final = {
    *(f"POST /api/v1/jobs/{kind}" for kind in (
        "chat", "count", "embed", "rerank", "image", "show", "running", "pull", "load", "unload",
        "copy", "create", "delete", "{kind}", "{id}/retry",
    )),
    "POST /api/v1/dead/redrive",
    "POST /api/chat", "POST /api/generate", "POST /api/embed", "POST /api/embeddings",
    "POST /api/show", "POST /api/pull", "POST /api/copy", "POST /api/create", "DELETE /api/delete",
    "POST /api/push", "POST /api/blobs/{digest}",
    "POST /v1/chat/completions", "POST /v1/completions", "POST /v1/embeddings",
    "POST /v1/images/generations", "POST /v1/images/edits", "POST /v1/responses",
    "POST /v1/responses/input_tokens", "POST /v1/responses/compact", "POST /v1/messages",
    "POST /v1/messages/count_tokens", "POST /v1/files", "POST /v1/batches",
    "POST /v1/messages/batches", "POST /v2/rerank", "POST /v1/rerank", "POST /rerank",
    "POST /v1/score", "POST /score", "POST /v2/embed",
}  # fmt: skip
"""Routes that enqueue jobs, or store files and batches."""
WELL: Final = {200, 307, 422}
"""Of what is asked without its parameters."""
ELSEWHERE: Final = {"POST /api/v1/backends", "DELETE /api/v1/backends/{name}"}
"""Of `fleet up`'s control socket; what Redis knows of a backend is deleted (below)."""


class Full:
    """A fleet with a tenant and an admin, whose Redis is filled after all preparations."""

    def __init__(self, server: RedisServer, shim: Keyed, relay: Relay) -> None:
        self.shim, self.relay = shim, relay
        self._server = server
        self.ann = shim.caller("ann")
        self.admin = shim.admin

    async def fill(self) -> None:
        """Keep more than may be kept, as another program would."""
        await self.relay.connection.command("SET", "ballast", b"x" * (2 * MIB))
        assert self._server.say("CONFIG", "SET", "maxmemory", str(MIB)) == b"+OK\r\n"
        assert self._server.say("SET", "more", "1").startswith(b"-OOM")

    async def close(self) -> None:
        await self.ann.aclose()
        await self.admin.aclose()

    async def job(self, **fields: Any) -> str:
        told = await self.ann.post("/api/v1/jobs/chat", json={**CHAT, **fields})
        assert told.status_code == 202, told.text
        return str(told.json()["id"])

    async def dead(self) -> str:
        return (await died(self.relay, tenant=Tenant(name="ann"))).id

    async def hook(self) -> str:
        made = await self.ann.post("/api/v1/webhooks", json=HOOK)
        assert made.status_code == 201, made.text
        return f"/api/v1/webhooks/{made.json()['id']}"

    async def file(self) -> str:
        files = {"file": ("rows.jsonl", json.dumps(row("1", **CHAT)))}
        made = await self.ann.post("/v1/files", files=files, data={"purpose": "batch"})
        return str(made.json()["id"])

    async def batch(self) -> str:
        batch = {
            "input_file_id": await self.file(), "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
        }  # fmt: skip
        made = await self.ann.post("/v1/batches", json=batch)
        assert made.status_code == 200, made.text
        return f"/v1/batches/{made.json()['id']}"

    async def message_batch(self) -> str:
        params = {"model": "m", "max_tokens": 9, "messages": CHAT["messages"]}
        requests = [{"custom_id": "1", "params": params}]
        made = await self.ann.post("/v1/messages/batches", json={"requests": requests})
        assert made.status_code == 200, made.text
        return f"/v1/messages/batches/{made.json()['id']}"

    async def response(self) -> str:
        body = {"model": "m", "input": "hello", "background": True}
        made = await self.ann.post("/v1/responses", json=body)
        assert made.status_code == 200, made.text
        return f"/v1/responses/{made.json()['id']}"

    async def key(self) -> str:
        return f"/api/v1/keys/{self.shim.issue('ann')['id']}"


Verb = Callable[[Full], Awaitable[httpx.Response]]
VERBS: Final[dict[str, Verb]] = {}


def verb(name: str) -> Callable[[Verb], Verb]:
    """Register what is asked in a full Redis, by its row of route_permissions.py."""

    def register(function: Verb) -> Verb:
        VERBS[name] = function
        return function

    return register


@verb("DELETE /api/v1/jobs/{id}")
async def cancel(at: Full) -> httpx.Response:
    job = await at.job()
    await at.fill()
    answer = await at.ann.delete(f"/api/v1/jobs/{job}")
    assert (await at.ann.get(f"/api/v1/jobs/{job}")).json()["status"] == "cancelled"
    return answer


@verb("DELETE /api/v1/jobs/{id} of a job that runs")
async def cancel_running(at: Full) -> httpx.Response:
    job = await at.job()
    await at.relay.claim()
    await at.fill()
    answer = await at.ann.delete(f"/api/v1/jobs/{job}")
    assert (await at.ann.get(f"/api/v1/jobs/{job}")).json()["status"] == "cancelled"
    return answer


@verb("DELETE /api/v1/jobs/{id} of a job for later")
async def cancel_scheduled(at: Full) -> httpx.Response:
    job = await at.job(not_before=time.time() + 1000)
    await at.fill()
    return await at.ann.delete(f"/api/v1/jobs/{job}")


@verb("DELETE /api/v1/jobs/{id} of a job that waits for another")
async def cancel_blocked(at: Full) -> httpx.Response:
    job = await at.job(after=[await at.job()])
    await at.fill()
    return await at.ann.delete(f"/api/v1/jobs/{job}")


@verb("DELETE /v1/responses/{id}")
async def delete_response(at: Full) -> httpx.Response:
    path = await at.response()
    await at.fill()
    return await at.ann.delete(path)


@verb("POST /v1/responses/{id}/cancel")
async def cancel_response(at: Full) -> httpx.Response:
    path = await at.response()
    await at.fill()
    return await at.ann.post(f"{path}/cancel")


@verb("DELETE /api/v1/dead")
async def purge_all(at: Full) -> httpx.Response:
    await at.dead()
    await at.fill()
    answer = await at.ann.delete("/api/v1/dead")
    assert answer.json()["purged"] == 1
    return answer


@verb("DELETE /api/v1/dead/{id}")
async def purge(at: Full) -> httpx.Response:
    job = await at.dead()
    await at.fill()
    return await at.ann.delete(f"/api/v1/dead/{job}")


@verb("DELETE /api/v1/dead/messages")
async def purge_messages(at: Full) -> httpx.Response:
    await at.relay.unreadable.put(QUEUE, reason="odd", size_bytes=1, data=b"x")
    await at.fill()
    answer = await at.admin.delete("/api/v1/dead/messages")
    assert answer.json()["purged"] == 1
    return answer


@verb("POST /api/v1/webhooks")
async def add_webhook(at: Full) -> httpx.Response:
    await at.fill()
    return await at.ann.post("/api/v1/webhooks", json=HOOK)


@verb("PATCH /api/v1/webhooks/{id}")
async def disable_webhook(at: Full) -> httpx.Response:
    path = await at.hook()
    await at.fill()
    return await at.ann.patch(path, json={"enabled": False})


@verb("DELETE /api/v1/webhooks/{id}")
async def remove_webhook(at: Full) -> httpx.Response:
    path = await at.hook()
    await at.fill()
    answer = await at.ann.delete(path)
    assert (await at.ann.get(path)).status_code == 404
    return answer


@verb("POST /api/v1/webhooks/{id}/rotate")
async def rotate_webhook(at: Full) -> httpx.Response:
    path = await at.hook()
    await at.fill()
    return await at.ann.post(f"{path}/rotate")


@verb("POST /api/v1/webhooks/{id}/replay")
async def replay_webhook(at: Full) -> httpx.Response:
    path = await at.hook()
    await at.fill()
    return await at.ann.post(f"{path}/replay", json={"since": 0})


@verb("PUT /api/v1/aliases/{name:path}")
async def set_alias(at: Full) -> httpx.Response:
    await at.fill()
    answer = await at.admin.put("/api/v1/aliases/given", json=ALIAS)
    assert (await at.admin.get("/api/v1/aliases/given")).status_code == 200
    return answer


@verb("DELETE /api/v1/aliases/{name:path}")
async def remove_alias(at: Full) -> httpx.Response:
    assert (await at.admin.put("/api/v1/aliases/gone", json=ALIAS)).status_code == 200
    await at.fill()
    answer = await at.admin.delete("/api/v1/aliases/gone")
    assert (await at.admin.get("/api/v1/aliases/gone")).status_code == 404
    return answer


@verb("POST /api/v1/queues/{queue}/pause")
async def pause(at: Full) -> httpx.Response:
    await at.fill()
    return await at.admin.post(f"/api/v1/queues/{QUEUE}/pause", json={"reason": "full"})


@verb("POST /api/v1/queues/{queue}/resume")
async def resume(at: Full) -> httpx.Response:
    await at.job()
    await at.admin.post(f"/api/v1/queues/{QUEUE}/pause", json={"reason": "full"})
    await at.fill()
    return await at.admin.post(f"/api/v1/queues/{QUEUE}/resume")


@verb("PUT /api/v1/queues/{queue}/windows")
async def set_windows(at: Full) -> httpx.Response:
    await at.fill()
    windows = {"windows": ["22:00-06:00 Europe/Berlin"]}
    answer = await at.admin.put(f"/api/v1/queues/{QUEUE}/windows", json=windows)
    gone = await at.admin.put(f"/api/v1/queues/{QUEUE}/windows", json={"windows": []})
    assert gone.status_code == answer.status_code
    return answer


@verb("POST /api/v1/keys")
async def issue(at: Full) -> httpx.Response:
    await at.fill()
    return await at.admin.post("/api/v1/keys", json={"tenant": "ben"})


@verb("PATCH /api/v1/keys/{id}")
async def limit(at: Full) -> httpx.Response:
    path = await at.key()
    await at.fill()
    return await at.admin.patch(path, json={"limit_jobs": 1})


@verb("DELETE /api/v1/keys/{id}")
async def revoke(at: Full) -> httpx.Response:
    path = await at.key()
    await at.fill()
    return await at.admin.delete(path)


@verb("POST /api/v1/keys/{id}/rotate")
async def rotate(at: Full) -> httpx.Response:
    path = await at.key()
    await at.fill()
    return await at.admin.post(f"{path}/rotate", json={"overlap_s": 60})


@verb("DELETE /api/v1/tenants/{name}")
async def delete_tenant(at: Full) -> httpx.Response:
    await at.dead()
    await at.job()
    await at.hook()
    await at.file()
    await at.fill()
    answer = await at.admin.delete("/api/v1/tenants/ann", params={"confirm": "ann"})
    if answer.status_code == 202:
        receipt = answer.json()
        async with asyncio.timeout(30):
            while receipt["status"] == "running":
                await asyncio.sleep(0.1)
                receipt = (await at.admin.get("/api/v1/tenants/ann/deletion")).json()
        assert (receipt["status"], receipt["counts"]["jobs"]) == ("done", 2), receipt
        assert receipt["counts"]["files"] == receipt["counts"]["webhooks"] == 1
    return answer


@verb("DELETE /v1/files/{file_id}")
async def delete_file(at: Full) -> httpx.Response:
    file = await at.file()
    await at.fill()
    answer = await at.ann.delete(f"/v1/files/{file}")
    async with asyncio.timeout(30):
        while await at.relay.connection.command("EXISTS", redis_keys.STORED):
            await asyncio.sleep(0.1)
    return answer


async def until(at: Full, path: str, field: str, status: str) -> None:
    async with asyncio.timeout(30):
        while (await at.ann.get(path)).json()[field] != status:
            await asyncio.sleep(0.1)


@verb("POST /v1/batches/{batch_id}/cancel")
async def cancel_batch(at: Full) -> httpx.Response:
    path = await at.batch()
    await at.fill()
    answer = await at.ann.post(f"{path}/cancel")
    await until(at, path, "status", "cancelled")
    return answer


@verb("POST /v1/messages/batches/{id}/cancel")
async def cancel_message_batch(at: Full) -> httpx.Response:
    path = await at.message_batch()
    await at.fill()
    answer = await at.ann.post(f"{path}/cancel")
    await until(at, path, "processing_status", "ended")
    return answer


@verb("DELETE /v1/messages/batches/{id}")
async def delete_message_batch(at: Full) -> httpx.Response:
    path = await at.message_batch()
    assert (await at.ann.post(f"{path}/cancel")).status_code == 200
    await until(at, path, "processing_status", "ended")
    await at.fill()
    return await at.ann.delete(path)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("full"))
    yield server
    server.stop()


@pytest.fixture
def redis(server: RedisServer) -> Iterator[RedisServer]:
    yield server
    server.say("CONFIG", "SET", "maxmemory", "0")
    server.say("FLUSHALL")


@pytest.fixture
def shim(redis: RedisServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Keyed]:
    monkeypatch.setattr(tenant_eraser, "_EVERY_S", 0.1)
    monkeypatch.setattr(tenant_eraser, "_SPARE_S", 0.5)
    with keyed(redis.url) as shim:
        yield shim


@pytest.mark.parametrize("name", VERBS)
async def test_what_frees_memory_and_what_helps_works(
    name: str, shim: Keyed, redis: RedisServer
) -> None:
    async with relay_on(redis.url) as relay:
        at = Full(redis, shim, relay)
        await Stage(at.ann, relay).announce()
        answer = await VERBS[name](at)
        await at.close()

    assert answer.is_success, answer.text


async def test_whoever_looks_for_the_reason_is_answered(shim: Keyed, redis: RedisServer) -> None:
    async with relay_on(redis.url) as relay:
        at = Full(redis, shim, relay)
        await Stage(at.ann, relay).announce()
        await at.dead()
        await at.job()
        await at.fill()
        paths = [name.split()[1] for name in NEEDS if name.startswith("GET") and "{" not in name]
        paths.remove("/api/v1/overview/events")
        paths.remove("/readyz")
        paths.append("/readyz?full=true")
        answers = {path: (await at.admin.get(path)).status_code for path in paths}
        await at.close()

    assert {path: status for path, status in answers.items() if status not in WELL} == {}


async def test_a_new_job_is_refused_with_the_reason(shim: Keyed, redis: RedisServer) -> None:
    async with relay_on(redis.url) as relay:
        at = Full(redis, shim, relay)
        await Stage(at.ann, relay).announce()
        await at.fill()
        answer = await at.ann.post("/api/v1/jobs/chat", json=CHAT)
        await at.close()

    assert "maxmemory" in problem(answer, 503, "relay_unavailable")["detail"]


def test_every_route_that_changes_anything_is_told_of() -> None:
    changing = {name for name in NEEDS if name.split()[0] in {"POST", "PUT", "PATCH", "DELETE"}}
    tried = {" ".join(name.split()[:2]) for name in VERBS}

    assert tried | REFUSED | ELSEWHERE == changing
    assert not tried & REFUSED
