"""A damaged job is told apart from one of a newer version; its owner deletes it, nobody else.

Subjects: api_shim/native/jobs.py, relay/records.py, relay/queue.py.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx
import pytest
from redis import Redis
from support.keys import keyed
from support.redis_server import RedisServer
from support.shim import CHAT, stage

from contract import redis_keys

DAMAGE: dict[str, tuple[tuple[str, ...], ...]] = {
    "another type": (("DEL",), ("SET", "garbage")),
    "no attempt": (("HSET", "attempt", "many"),),
    "no time": (("HSET", "created_at", "9" * 400),),
    "no status": (("HSET", "status", "{"),),
    "no kind": (("HDEL", "kind"),),
    "no id": (("HSET", "id", ""),),
    "no tenant": (("HDEL", "tenant"),),
    "no version": (("HSET", "v", "nan"),),
}
NEWER: dict[str, tuple[tuple[str, ...], ...]] = {
    "a new kind": (("HSET", "kind", "moderate"),),
    "a version": (("HSET", "v", "2", "attempt", "first"),),
}


def change(url: str, job: str, words: tuple[tuple[str, ...], ...]) -> None:
    redis = Redis.from_url(url)
    for name, *rest in words:
        redis.execute_command(name, redis_keys.record(job), *rest)


@asynccontextmanager
async def changed(
    url: str, words: tuple[tuple[str, ...], ...]
) -> AsyncGenerator[tuple[httpx.AsyncClient, httpx.AsyncClient, str]]:
    """Clients of the tenants red and blue, and a job of red that was changed so."""
    with keyed(url) as shim:
        async with (
            stage(shim.url, url) as at,
            shim.caller("red") as red,
            shim.caller("blue") as blue,
        ):
            await at.announce()
            job = (await red.post("/api/v1/jobs/chat", json=CHAT)).json()["id"]
            change(url, job, words)
            yield red, blue, job


@pytest.mark.parametrize("how", DAMAGE)
async def test_a_damaged_job_is_called_so_and_deleted_by_its_owner(
    own_redis: RedisServer, how: str
) -> None:
    async with changed(own_redis.url, DAMAGE[how]) as (red, blue, job):
        path = f"/api/v1/jobs/{job}"
        read = await red.get(path)
        others = [await blue.get(path), await blue.delete(path)]
        deleted = await red.delete(path)
        after = await red.get(path)

    problem = read.json()
    assert (read.status_code, problem["code"]) == (410, "job_damaged")
    assert "damaged" in problem["detail"]
    assert [(each.status_code, each.json()["code"]) for each in others] == [
        (404, "job_not_found")
    ] * 2
    assert deleted.status_code == 204
    assert (after.status_code, after.json()["code"]) == (404, "job_not_found")
    redis = Redis.from_url(own_redis.url)
    left = [key for key in redis.scan_iter("fleet:j:*") if job.encode() in key]
    assert [key for key in left if not redis.ttl(key) <= 60] == []
    assert redis.zcard(redis_keys.LIVE) == redis.hlen(redis_keys.facts("scripted.chat")) == 0


@pytest.mark.parametrize("how", NEWER)
async def test_a_job_of_a_newer_version_is_called_so_and_stays(
    own_redis: RedisServer, how: str
) -> None:
    async with changed(own_redis.url, NEWER[how]) as (red, blue, job):
        path = f"/api/v1/jobs/{job}"
        read, deleted = await red.get(path), await red.delete(path)
        others = await blue.get(path)

    assert [(each.status_code, each.json()["code"]) for each in (read, deleted)] == [
        (503, "newer_version")
    ] * 2
    assert others.status_code == 404
    assert Redis.from_url(own_redis.url).exists(redis_keys.record(job))
