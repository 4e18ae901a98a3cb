"""Everything of a tenant is deleted, nothing of others, with a receipt that stays true.

Subjects: api_shim/tenants/deletion_routes.py, relay/deletion/tenant_deletions.py,
relay/deletion/tenant_sweep.py.
"""

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from support.batches import row
from support.keys import Keyed, keyed
from support.redis_server import RedisServer
from support.relay import Relay
from support.shim import CHAT, problem, serving, stage

from api_shim.tenants import tenant_eraser
from contract import redis_keys
from contract.conversations import conversation_id
from contract.events import Delta
from relay.deletion.tenant_deletions import TenantDeletions
from relay.files import stored_name

GONE, NEIGHBOUR = "clinic", "clinic.b"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deletion that waits no longer than these shims take to hear of a revoked key."""
    monkeypatch.setattr(tenant_eraser, "_EVERY_S", 0.1)
    monkeypatch.setattr(tenant_eraser, "_SPARE_S", 0.5)


@pytest.fixture
def fleet(own_redis: RedisServer) -> Iterator[Keyed]:
    with keyed(own_redis.url, private_webhooks=True) as fleet:
        yield fleet


async def use(caller: httpx.AsyncClient, relay: Relay, tenant: str, backend: str) -> None:
    """Leave some of everything behind, on a backend that only this tenant uses."""
    chat, queue = {**CHAT, "backend": backend}, f"{backend}.chat"
    headers = {"Idempotency-Key": "once", "X-Fleet-Conversation": "talk"}
    done = await caller.post("/api/v1/jobs/chat", json=chat, headers=headers)
    claim = await relay.start_next(queue, "w1")
    assert claim is not None
    await relay.run(claim, Delta(content=f"secret of {tenant}"))
    assert claim.record.id == done.json()["id"]
    for _ in range(3):
        assert (await caller.post("/api/v1/jobs/chat", json=chat)).status_code == 202
    running = await relay.start_next(queue, "w1")
    assert running is not None
    await batch_of(caller, **chat)
    hook = {"url": "http://127.0.0.1:9/hook", "events": ["job.done"]}
    assert (await caller.post("/api/v1/webhooks", json=hook)).status_code == 201
    vector = redis_keys.vector("box", f"{tenant}:{'0' * 64}")
    await relay.connection.command("SET", vector, b"1234")


async def batch_of(caller: httpx.AsyncClient, **chat: Any) -> str:
    """Begin a batch of one row. Returns the id of its input."""
    files = {"file": ("rows.jsonl", json.dumps(row("1", **chat)))}
    file = await caller.post("/v1/files", files=files, data={"purpose": "batch"})
    batch = {
        "input_file_id": file.json()["id"], "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
    }  # fmt: skip
    assert (await caller.post("/v1/batches", json=batch)).status_code == 200
    return str(batch["input_file_id"])


async def of(relay: Relay, tenant: str) -> set[str]:
    """Everything in Redis that names a tenant: keys, members, fields and values."""
    name = re.compile(rb"(?<![\w.-])" + re.escape(tenant.encode()) + rb"(?![\w.-])")
    found = set()
    for key in await relay.connection.command("KEYS", "*"):
        text = key + b" " + repr(await _value(relay, key)).encode()
        if name.search(text):
            found.add(key.decode())
    return found


async def _value(relay: Relay, key: bytes) -> Any:
    kind = await relay.connection.command("TYPE", key)
    words = {
        "string": ("GET", key), "hash": ("HGETALL", key), "list": ("LRANGE", key, 0, -1),
        "set": ("SMEMBERS", key), "zset": ("ZRANGE", key, 0, -1),
        "stream": ("XRANGE", key, "-", "+"),
    }  # fmt: skip
    name = kind.decode() if isinstance(kind, bytes) else kind
    return await relay.connection.command(*words[name]) if name in words else None


async def deleted(admin: httpx.AsyncClient, tenant: str = GONE, **params: str) -> dict[str, Any]:
    """The receipt at the end of a deletion."""
    path = f"/api/v1/tenants/{tenant}"
    begun = await admin.delete(path, params={"confirm": tenant, **params})
    assert (begun.status_code, begun.json()["status"]) == (202, "running"), begun.text
    async with asyncio.timeout(30):
        while True:
            receipt: dict[str, Any] = (await admin.get(f"{path}/deletion")).json()
            if receipt["status"] != "running":
                return receipt
            await asyncio.sleep(0.05)


async def test_a_tenant_is_deleted_and_its_neighbour_is_not(
    fleet: Keyed, own_redis: RedisServer
) -> None:
    async with stage(fleet.url, own_redis.url) as at, fleet.admin as admin:
        await at.announce("box", "m")
        await at.announce("crate", "m")
        async with fleet.caller(GONE) as gone, fleet.caller(NEIGHBOUR) as neighbour:
            await use(neighbour, at.relay, NEIGHBOUR, "crate")
            before = await of(at.relay, NEIGHBOUR)
            await use(gone, at.relay, GONE, "box")
            receipt = await deleted(admin, usage="delete")
            refused = await gone.get("/api/v1/jobs")
            jobs = (await neighbour.get("/api/v1/jobs")).json()["jobs"]
            files = (await neighbour.get("/v1/files")).json()["data"]
        left = await of(at.relay, GONE)
        after = await of(at.relay, NEIGHBOUR)
        turns = redis_keys.turns(conversation_id(GONE, "talk"))
        audit = (await admin.get("/api/v1/audit")).json()["entries"][0]

        assert receipt["status"] == "done", receipt
        counts = receipt["counts"]
        assert (counts["jobs"] >= 4, counts["jobs_cancelled"] >= 3) == (True, True)
        kinds = ("api_keys", "batches", "idempotency_keys", "vectors", "webhooks")
        assert [counts[kind] for kind in kinds] == [1] * len(kinds)
        assert counts["files"] >= 1
        kept = {
            redis_keys.deletion(GONE),
            redis_keys.AUDIT,
            redis_keys.AUDIT_OF_ADMINS,
            redis_keys.audit_of(GONE),
            redis_keys.UNSETTLED,
        }
        assert {key for key in left if not key.startswith("fleet:q:")} <= kept
        assert not await at.relay.connection.command("EXISTS", turns)
        assert {key for key in before if key.startswith(("fleet:t:", "fleet:file:"))} <= after
        assert refused.status_code == 401
        assert len(jobs) >= 4
        assert len(files) >= 1
        assert (audit["action"], audit["subject"]) == (
            "DELETE /api/v1/tenants/{name}", f"tenant {GONE}, usage: delete",
        )  # fmt: skip


async def test_no_file_stays_for_a_batch_that_read_it(fleet: Keyed, own_redis: RedisServer) -> None:
    async with stage(fleet.url, own_redis.url) as at, fleet.admin as admin:
        await at.announce("box", "m")
        async with fleet.caller(GONE) as gone:
            inputs = [await batch_of(gone, **CHAT, backend="box") for _ in range(2)]
            assert (await gone.delete(f"/v1/files/{inputs[0]}")).status_code == 200
            await deleted(admin)

        for name in map(stored_name, inputs):
            due = await at.relay.connection.command("ZSCORE", redis_keys.STORED, name)
            assert due is None or float(due) < at.relay.connection.now() + 600  # of a claim
            assert await at.relay.connection.command("ZSCORE", redis_keys.HELD, name) is None


async def test_usage_is_kept_unless_it_is_to_go(fleet: Keyed, own_redis: RedisServer) -> None:
    async with stage(fleet.url, own_redis.url) as at, fleet.admin as admin:
        await at.announce("box", "m")
        async with fleet.caller(GONE) as gone:
            await gone.post("/api/v1/jobs/chat", json=CHAT)
        claim = await at.relay.start_next("box.chat", "w1")
        assert claim is not None
        await at.relay.run(claim, Delta(content="hi"))
        receipt = await deleted(admin)
        used = (await admin.get("/api/v1/usage", params={"tenant": GONE})).json()["rows"]
        again = await deleted(admin, usage="delete")
        then = (await admin.get("/api/v1/usage", params={"tenant": GONE})).json()["rows"]

        assert (receipt["usage"], receipt["counts"]["jobs"]) == ("keep", 1)
        assert [row["requests"] for row in used] == [1]
        assert again["counts"]["usage"] >= 1
        assert then == []


async def test_another_shim_goes_on_where_one_was_killed(
    fleet: Keyed, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage(fleet.url, own_redis.url) as at:
        async with fleet.caller(GONE) as gone:
            await gone.post("/api/v1/jobs/chat", json=CHAT, params={"enqueue_anyway": True})
        # As a shim leaves it that is killed after it has written the receipt, with its lease.
        deletions = TenantDeletions(at.relay.connection)
        await deletions.hold("killed")
        await deletions.begin(GONE, by="boss", usage="keep")
        await deletions.count(GONE, "jobs", 7)
        await asyncio.sleep(0.3)
        waiting = await deletions.receipt(GONE)
        await at.relay.connection.command("UNLINK", redis_keys.ERASER)  # as it expires
        with serving(own_redis.url, key_max_age_s=0.2):
            async with asyncio.timeout(30):
                while (receipt := await deletions.receipt(GONE)).status == "running":
                    await asyncio.sleep(0.05)

        assert waiting.status == "running"
        assert (receipt.status, receipt.counts["jobs"] >= 7) == ("done", True)


@pytest.mark.parametrize(
    ("path", "params", "status", "code"),
    [
        (GONE, {}, 422, "invalid_request"),
        (GONE, {"confirm": "clini"}, 422, "not_confirmed"),
        (GONE, {"confirm": GONE, "usage": "some"}, 422, "invalid_request"),
        (GONE, {"confirm": GONE, "other": "1"}, 422, "invalid_request"),
        ("boss", {"confirm": "boss"}, 409, "own_tenant"),
        ("*", {"confirm": "*"}, 422, "invalid_request"),
        ("a:b", {"confirm": "a:b"}, 422, "invalid_request"),
        ("%C3%A4", {"confirm": "ä"}, 422, "invalid_request"),
    ],
)
async def test_what_is_refused(
    fleet: Keyed, path: str, params: dict[str, str], status: int, code: str
) -> None:
    async with fleet.admin as admin:
        answer = await admin.delete(f"/api/v1/tenants/{path}", params=params)

        problem(answer, status, code)


async def test_only_an_admin_may_and_an_admin_stays(fleet: Keyed) -> None:
    async with fleet.caller(GONE) as gone, fleet.caller("two", admin=True) as second:
        refused = await gone.delete("/api/v1/tenants/two", params={"confirm": "two"})
        none = await second.get("/api/v1/tenants/nobody/deletion")
        boss = (await second.get("/api/v1/keys")).json()["keys"][0]["id"]
        short = await second.patch(f"/api/v1/keys/{boss}", json={"expires_in_s": 60})
        async with fleet.admin as admin:
            last = await admin.delete("/api/v1/tenants/two", params={"confirm": "two"})

    assert short.status_code == 200
    problem(refused, 403, "not_allowed")
    problem(none, 404, "unknown_tenant")
    problem(last, 409, "last_admin")
