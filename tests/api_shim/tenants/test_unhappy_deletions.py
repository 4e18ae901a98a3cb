"""A deletion ends although something is damaged, of the tenant or of others, or arrives meanwhile.

Subjects: relay/deletion/tenant_sweep.py, api_shim/tenants/tenant_eraser.py.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator

import httpx
import pytest
from support.keys import Keyed, keyed
from support.redis_server import RedisServer
from support.shim import CHAT, stage

from api_shim.tenants import tenant_eraser
from contract import redis_keys
from relay.deletion.tenant_sweep import TenantSweep

from .test_tenant_eraser import GONE, NEIGHBOUR, batch_of, deleted, use

DAMAGE: dict[str, tuple[tuple[str, ...], ...]] = {
    "no attempt": (("HSET", "attempt", "many"),),
    "no status": (("HSET", "status", "{"),),
    "a newer status": (("HSET", "status", "asleep"),),
    "no queue": (("HDEL", "queue"),),
    "no json": (("HSET", "json", "{"), ("HSET", "data", "{")),
    "another type": (("DEL",), ("SET", "garbage")),
}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenant_eraser, "_EVERY_S", 0.1)
    monkeypatch.setattr(tenant_eraser, "_SPARE_S", 0.5)


@pytest.fixture
def fleet(own_redis: RedisServer) -> Iterator[Keyed]:
    with keyed(own_redis.url, private_webhooks=True) as fleet:
        yield fleet


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("whose", [GONE, NEIGHBOUR])
async def test_a_deletion_ends_although_records_are_damaged(
    fleet: Keyed, own_redis: RedisServer, whose: str, how: str
) -> None:
    async with stage(fleet.url, own_redis.url) as at, fleet.admin as admin:
        await at.announce("box", "m")
        await at.announce("crate", "m")
        async with fleet.caller(GONE) as gone, fleet.caller(NEIGHBOUR) as neighbour:
            await use(neighbour, at.relay, NEIGHBOUR, "crate")
            await use(gone, at.relay, GONE, "box")
            backend, caller = ("box", gone) if whose == GONE else ("crate", neighbour)
            chat = {**CHAT, "backend": backend}
            job = (await caller.post("/api/v1/jobs/chat", json=chat)).json()["id"]
            file = await batch_of(caller, **chat)
            batch = (await caller.get("/v1/batches")).json()["data"][0]["id"]
        keys = [redis_keys.record(job), redis_keys.file(file), redis_keys.batch(batch)]
        for name, *words in DAMAGE[how]:
            for key in keys:
                await at.relay.connection.command(name, key, *words)
        receipt = await deleted(admin)
        left = await at.relay.connection.command("EXISTS", redis_keys.record(job))

    assert receipt["status"] == "done", receipt
    assert receipt["counts"]["jobs"] >= 4
    if how != "another type":
        assert bool(left) == (whose != GONE)


@pytest.fixture
def patient_fleet(own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Keyed]:
    """One that waits for what a revoked key has begun, as all do."""
    monkeypatch.setattr(tenant_eraser, "_SPARE_S", 5.0)
    with keyed(own_redis.url) as fleet:
        yield fleet


async def test_an_upload_that_is_under_way_leaves_nothing(
    patient_fleet: Keyed, own_redis: RedisServer
) -> None:
    fleet = patient_fleet
    went_on = asyncio.Event()

    async def slowly() -> AsyncGenerator[bytes]:
        head = 'Content-Disposition: form-data; name="{}"'
        yield (
            f"--b\r\n{head.format('purpose')}\r\n\r\nbatch\r\n--b\r\n{head.format('file')}; "
            'filename="f"\r\n\r\n'
        ).encode() + b"x" * 100_000
        await went_on.wait()
        yield b"x" * 100_000 + b"\r\n--b--\r\n"

    async with stage(fleet.url, own_redis.url) as at, fleet.admin as admin:
        say = at.relay.connection.command
        async with fleet.caller(GONE) as gone:
            upload = asyncio.create_task(
                gone.post(
                    "/v1/files", content=slowly(),
                    headers={"content-type": "multipart/form-data; boundary=b"},
                )
            )  # fmt: skip
            async with asyncio.timeout(10):
                while not await say("HLEN", redis_keys.FILE_SIZES):
                    assert not upload.done(), upload.result().text
                    await asyncio.sleep(0.01)
            receipt = await deleted(admin)
            went_on.set()
            try:
                status = (await upload).status_code
            except httpx.TransportError:
                status = 401
        async with asyncio.timeout(10):
            while await say("HLEN", redis_keys.FILE_SIZES):
                await asyncio.sleep(0.05)
        left = await say("EXISTS", redis_keys.FILE_BYTES, redis_keys.files(GONE))

    assert (receipt["status"], status, left) == ("done", 401, 0), receipt


async def test_a_batch_that_is_being_cancelled_keeps_its_input(
    fleet: Keyed, own_redis: RedisServer
) -> None:
    # Its driver found no input, and tried again after two seconds, four, eight, up to minutes.
    async with stage(fleet.url, own_redis.url) as at, fleet.admin as admin:
        await at.announce("box", "m")
        async with fleet.caller(GONE) as gone:
            for _ in range(3):
                await batch_of(gone, **CHAT, backend="box")
            connection = at.relay.connection
            sweep = TenantSweep(connection, at.relay.queue, GONE, usage=False)
            names = await connection.command("HKEYS", redis_keys.FILE_SIZES)
            left = await sweep.objects()
            due = await connection.command("ZCOUNT", redis_keys.STORED, 0, time.time())
        receipt = await deleted(admin)

    assert (left, due) == (len(names), 0)
    assert receipt["status"] == "done"
