"""Waiting jobs of a tenant that is refused wait until there is room; those of others run."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support.queues import check_books
from support.relay import QUEUE, Relay, chat, relay_on

from contract.tenants import Tenant
from relay.claims import Claims
from relay.position import NO_ROOM
from relay.scripts import queues

LONG_S = 1000.0


@asynccontextmanager
async def holding(url: str, *tenants: str, slowed: tuple[str, ...] = ()) -> AsyncGenerator[Relay]:
    async with relay_on(url, reap_s=LONG_S) as relay:
        relay.connection.crowding = frozenset(tenants)
        relay.connection.slowed = frozenset(slowed)
        yield relay


async def put(relay: Relay, tenant: str, count: int = 1, **fields: Any) -> list[str]:
    crowding, relay.connection.crowding = relay.connection.crowding, frozenset()
    request, whose = chat(**fields), Tenant(name=tenant)
    jobs = [
        (await relay.queue.enqueue(request, queue=QUEUE, tenant=whose))[0].id for _ in range(count)
    ]
    relay.connection.crowding = crowding
    return jobs


async def claimed(relay: Relay) -> str | None:
    claim = await relay.start_next(QUEUE, "w")
    return None if claim is None else claim.record.id


async def claimed_of(relay: Relay, times: int) -> list[str]:
    found = [await claimed(relay) for _ in range(times)]
    return [job for job in found if job is not None]


@pytest.mark.parametrize("many", [1, 32, 100, 101, 600])
async def test_jobs_of_others_run_however_many_are_held_before_them(
    redis_url: str, many: int
) -> None:
    async with holding(redis_url, "a") as relay:
        await put(relay, "a", many, priority="interactive")
        (theirs,) = await put(relay, "b", priority="batch")

        assert await claimed_of(relay, 8) == [theirs]
        await check_books(relay, {theirs})


async def test_they_go_on_in_their_order_once_there_is_room(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "HELD_S", 0.05)
    async with holding(redis_url, "a") as relay:
        jobs = await put(relay, "a", 5)
        assert await claimed_of(relay, 2) == []
        relay.connection.crowding = frozenset()
        await asyncio.sleep(0.1)
        await relay.leases.wake(QUEUE)

        assert await claimed_of(relay, 6) == jobs
        await check_books(relay, set(jobs))


async def test_one_that_is_held_says_so_and_can_be_cancelled(redis_url: str) -> None:
    async with holding(redis_url, "a") as relay:
        (job,) = await put(relay, "a")
        await claimed(relay)
        place = await relay.queue.positions.place(await relay.records.get(job))
        await relay.queue.cancel(job, by="caller")

        assert place.reason == NO_ROOM
        assert (await relay.records.get(job)).status == "cancelled"
        await check_books(relay, set())


async def test_messages_of_a_conversation_and_jobs_of_every_model_are_held(redis_url: str) -> None:
    async with holding(redis_url, "a") as relay:
        await put(relay, "a", 3, conversation="c", conversation_policy="queue")
        await put(relay, "a", 3, priority="batch")
        (theirs,) = await put(relay, "b", conversation="c", conversation_policy="queue")

        assert await claimed_of(relay, 4) == [theirs]
        await check_books(relay, {theirs})


async def test_of_a_slowed_tenant_a_job_runs_now_and_then(redis_url: str) -> None:
    async with holding(redis_url, "a", "b", slowed=("a",)) as relay:
        jobs = await put(relay, "a", 3)
        await put(relay, "b", 3)
        first = await claimed_of(relay, 3)
        other_worker = await Claims(relay.connection).claim(QUEUE, "w2")
        await asyncio.sleep(0)

        assert first == jobs[:1]
        assert other_worker is None  # they are delayed by now


async def test_it_is_let_through_once_in_each_interval(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "HELD_S", 0.01)
    async with holding(redis_url, "a", slowed=("a",)) as relay:
        relay.connection.settings = relay.connection.settings.model_copy(update={"reap_s": 0.2})
        jobs = await put(relay, "a", 4)
        found: list[str] = []
        began = time.monotonic()
        while len(found) < 4:
            found += await claimed_of(relay, 1)
            await asyncio.sleep(0.01)

        assert set(found) == set(jobs)
        assert time.monotonic() - began > 3 * 0.2
