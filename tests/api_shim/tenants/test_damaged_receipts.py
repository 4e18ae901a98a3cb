"""A receipt that another program has damaged is told as far as it is one, and holds nobody up.

Subjects: relay/deletion/tenant_deletions.py, api_shim/tenants/tenant_eraser.py.
"""

import asyncio
import logging
import time
from collections.abc import Iterator

import pytest
from redis import Redis
from support.keys import Keyed, client, keyed
from support.redis_server import RedisServer
from support.shim import problem

from api_shim.tenants import tenant_eraser
from contract import redis_keys

GARBAGE = (b"", b"null", b"1e999", b"\xff\xfe", b"nan", b"-1", b"{", b"9" * 400, b"\x1b[31m")
NEEDED = ("status", "usage", "requested_at", "requested_by")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenant_eraser, "_EVERY_S", 0.1)
    monkeypatch.setattr(tenant_eraser, "_SPARE_S", 0.2)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Keyed, Redis]]:
    server = RedisServer(tmp_path_factory.mktemp("receipts"))
    with keyed(server.url, key_max_age_s=0.1) as shim:
        yield shim, Redis.from_url(server.url)
    server.stop()


@pytest.mark.parametrize("value", GARBAGE, ids=ascii)
@pytest.mark.parametrize(
    "field", [*NEEDED, "tenant", "reason", "ended_at", "n:jobs", "n:\udcff", "counted", "more"]
)
async def test_a_receipt_with_a_damaged_field_is_no_error(
    fleet: tuple[Keyed, Redis], field: str, value: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "relay.connection")
    shim, redis = fleet
    key = redis_keys.deletion("red")
    sound = {"tenant": "red", "status": "done", "usage": "keep", "requested_by": "boss"}
    times = {"requested_at": "1.5", "ended_at": "2.5", "n:files": "3"}
    redis.hset(key, mapping={**sound, **times, field.encode("utf-8", "surrogateescape"): value})
    async with client(shim.url, shim.key) as boss:
        answer = await boss.get("/api/v1/tenants/red/deletion")
    redis.delete(key)

    if answer.status_code == 200:
        assert field not in ("status", "usage", "requested_at")
        assert answer.json()["counts"] == {"files": 3}
    else:
        problem(answer, 503, "relay_unavailable")


@pytest.mark.parametrize("field", NEEDED)
async def test_a_receipt_without_a_field_is_no_error(
    fleet: tuple[Keyed, Redis], field: str
) -> None:
    shim, redis = fleet
    key = redis_keys.deletion("blue")
    sound = {"status": "done", "usage": "keep", "requested_by": "boss", "requested_at": "1"}
    redis.hset(key, mapping={name: it for name, it in sound.items() if name != field})
    async with client(shim.url, shim.key) as boss:
        answer = await boss.get("/api/v1/tenants/blue/deletion")
    redis.delete(key)

    assert answer.status_code == (404 if field == "status" else 503)


async def test_a_damaged_receipt_holds_up_no_other_deletion_and_can_be_begun_anew(
    fleet: tuple[Keyed, Redis], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    shim, redis = fleet
    for name, field in (("odd", "usage"), ("odder", "n:api_keys")):
        redis.hset(redis_keys.deletion(name), mapping={
            "tenant": name, "status": "running", "usage": "keep", "requested_by": "boss",
            "requested_at": f"{time.time():.3f}", field: b"\xff",
        })  # fmt: skip
        redis.zadd(redis_keys.DELETIONS, {name: 1})
    redis.lpush(redis_keys.deletion("list"), "x")
    redis.zadd(redis_keys.DELETIONS, {"list": 0, b"\xff": 0, "": 0})
    shim.issue("odder")
    async with client(shim.url, shim.key) as boss, asyncio.timeout(20):
        await boss.delete("/api/v1/tenants/fine?confirm=fine")
        for name, status in (("fine", "done"), ("odder", "done")):
            while (await told(boss, name)).get("status") != status:
                await asyncio.sleep(0.05)
        counts = (await told(boss, "odder"))["counts"]
        while b"odd" in redis.zrange(redis_keys.DELETIONS, 0, -1):
            await asyncio.sleep(0.05)
        again = await boss.delete("/api/v1/tenants/odd?confirm=odd")
        while (await told(boss, "odd")).get("status") != "done":
            await asyncio.sleep(0.05)
    redis.delete(redis_keys.deletion("list"), redis_keys.DELETIONS)

    assert counts["api_keys"] == 1
    assert again.status_code == 202
    assert redis_keys.DELETIONS in caplog.text
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR]


async def told(boss: object, name: str) -> dict[str, object]:
    answer = await boss.get(f"/api/v1/tenants/{name}/deletion")  # type: ignore[attr-defined]
    return dict(answer.json()) if answer.status_code != 500 else {"status": "error"}
