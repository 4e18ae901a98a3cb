"""Room is made by ended jobs of who keeps most, the oldest first, and by no others."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from support.redis_server import RedisServer
from support.relay import QUEUE, Relay, chat, relay_on

from contract import redis_keys
from contract.errors import JobNotFound, QueueFull, RelayFull, WorkerLost
from contract.events import Delta
from contract.tenants import Tenant
from relay.idempotency import Idempotency, Key
from relay.parents import Parents
from relay.queue import Once, Queue
from relay.room import room_maker
from relay.room.room_maker import RoomMaker
from relay.room.room_state import look, read_state
from relay.usage.ledger import Ledger, UsageQuery
from telemetry.process_metrics import ProcessMetrics
from telemetry.settings import MetricsSettings

KIB = 1024
SOON = {"memory_keeps_s": 0.0, "queue_limit": 10**6, "compact_after_s": 0.0}
TEXT = "".join(chr(33 + i % 90) for i in range(3 * KIB))


@asynccontextmanager
async def relay_at(redis: RedisServer, **settings: Any) -> AsyncGenerator[Relay]:
    async with relay_on(redis.url, **{**SOON, **settings}) as relay:
        yield relay


async def job_of(relay: Relay, tenant: str, text: str = TEXT, **fields: Any) -> str:
    record, _ = await relay.queue.enqueue(
        chat(text, **fields), queue=QUEUE, tenant=Tenant(name=tenant)
    )
    return record.id


async def ended(relay: Relay, tenant: str, count: int = 1, text: str = TEXT) -> list[str]:
    jobs = []
    for _ in range(count):
        jobs.append(await job_of(relay, tenant, text))
        await relay.run(await relay.claim(), Delta(content=text))
    await relay.connection.command("DEL", redis_keys.UNSETTLED)
    return jobs


async def bound(relay: Relay, share: float) -> None:
    """Let what is used be this share of `maxmemory`."""
    used, _ = await relay.connection.memory()
    await relay.connection.command("CONFIG", "SET", "maxmemory", int(used / share))


async def there(relay: Relay, jobs: list[str]) -> list[bool]:
    return [
        bool(found)
        for found in await relay.connection.pipeline(
            [("EXISTS", redis_keys.record(job)) for job in jobs]
        )
    ]


async def keys_of(relay: Relay, job: str) -> int:
    lists = [redis_keys.RECENT, redis_keys.recent("a"), redis_keys.DEAD]
    listed = await relay.connection.pipeline([("ZSCORE", each, job) for each in lists])
    keys = [redis_keys.record(job), redis_keys.log(job)]
    return int(await relay.connection.command("EXISTS", *keys)) + len([s for s in listed if s])


async def test_below_the_mark_nothing_goes(own_redis: RedisServer) -> None:
    async with relay_at(own_redis) as relay:
        jobs = await ended(relay, "a", 30)
        await bound(relay, 0.75)
        await RoomMaker(relay.connection).make(5)

        assert all(await there(relay, jobs))


async def test_without_maxmemory_nothing_goes(own_redis: RedisServer) -> None:
    async with relay_at(own_redis) as relay:
        jobs = await ended(relay, "a", 30)
        await RoomMaker(relay.connection).make(5)

        assert all(await there(relay, jobs))
        assert await read_state(relay.connection) is None


async def test_the_oldest_of_who_keeps_most_go_and_nothing_of_others(
    own_redis: RedisServer,
) -> None:
    async with relay_at(own_redis) as relay:
        b = await ended(relay, "b", 20)
        a = await ended(relay, "a", 300)
        b += await ended(relay, "b", 20)
        await bound(relay, 0.85)
        await RoomMaker(relay.connection).make(30)
        left = await there(relay, a)

        assert all(await there(relay, b))
        assert 0 < left.count(False) < 300
        assert sorted(left) == left
        assert await keys_of(relay, a[0]) == 0
        with pytest.raises(JobNotFound):
            await relay.records.get(a[0])


async def test_few_large_jobs_count_for_what_they_are(own_redis: RedisServer) -> None:
    async with relay_at(own_redis) as relay:
        many = await ended(relay, "many", 200, "x")
        large = await ended(relay, "large", 8, TEXT * 60)
        await bound(relay, 0.85)
        await RoomMaker(relay.connection).make(30)

        assert all(await there(relay, many))
        assert False in await there(relay, large)


async def test_what_has_not_ended_or_ended_just_now_stays(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room_maker, "_READ_S", 0)
    async with relay_at(own_redis, memory_keeps_s=300.0) as relay:
        ago = await ended(relay, "a", 100)
        for job in ago:
            await relay.connection.command("HSET", redis_keys.record(job), "ended_at", "1.0")
        waiting = [await job_of(relay, "a") for _ in range(2)]
        just_now = await ended(relay, "a", 20)
        await bound(relay, 1.2)
        await RoomMaker(relay.connection).make(30)

        assert all(await there(relay, waiting + just_now))
        assert False in await there(relay, ago)


async def test_what_somebody_reads_or_needs_stays(own_redis: RedisServer) -> None:
    async with relay_at(own_redis, memory_keeps_s=2.0) as relay:
        row, _ = await Queue(relay.connection, is_for_rows=True).enqueue(
            chat(TEXT), queue=QUEUE, tenant=Tenant(name="a"), job_id="f" * 32
        )
        late = await ended(relay, "a", 100)
        read = late[0]
        idle = ("OBJECT", "IDLETIME", redis_keys.log(late[-1]))
        while await relay.connection.command(*idle) < 3:
            await asyncio.sleep(0.1)
        await relay.frames(read)
        await bound(relay, 1.2)
        await RoomMaker(relay.connection).make(30)

        assert (await relay.records.get(row.id)).status == "done"
        assert all(await there(relay, [read]))
        assert False in await there(relay, late)


async def test_a_parent_stays_until_its_children_were_looked_at(own_redis: RedisServer) -> None:
    async with relay_at(own_redis) as relay:
        parent = await job_of(relay, "a")
        other = await job_of(relay, "a", not_before=relay.connection.now() + 1000)
        child, _ = await relay.queue.enqueue(
            chat(after=(parent, other)), queue=QUEUE, tenant=Tenant(name="a")
        )
        await relay.run(await relay.claim(), Delta(content=TEXT))
        jobs = await ended(relay, "a", 50)
        await bound(relay, 1.2)
        await RoomMaker(relay.connection).make(30)
        assert all(await there(relay, [parent, *jobs]))

        await Parents(relay.connection).keep()
        await RoomMaker(relay.connection).make(30)
        assert (await there(relay, [parent, *jobs]))[:2] == [False, False]

        await relay.connection.command("CONFIG", "SET", "maxmemory", 0)
        await relay.connection.command("ZADD", redis_keys.BLOCKED, 0, child.id)
        await relay.reconciler.reconcile()
        assert (await relay.records.get(child.id)).status == "queued"


async def test_jobs_that_wait_for_all_of_a_tenants_jobs_keep_none_of_them(
    own_redis: RedisServer,
) -> None:
    async with relay_at(own_redis) as relay:
        jobs = await ended(relay, "a", 100)
        never = await job_of(relay, "a", not_before=relay.connection.now() + 1000)
        for at in range(0, 100, 20):
            after = (*jobs[at : at + 20], never)
            await relay.queue.enqueue(chat(after=after), queue=QUEUE, tenant=Tenant(name="a"))
        await bound(relay, 1.1)
        await RoomMaker(relay.connection).make(30)

        assert False in await there(relay, jobs)


async def test_who_is_refused_keeps_nothing_by_reading_it(own_redis: RedisServer) -> None:
    async with relay_at(own_redis, memory_keeps_s=2.0) as relay:
        jobs = await ended(relay, "a", 100)
        mine = await ended(relay, "b", 2)
        await asyncio.sleep(2.5)
        await bound(relay, 0.95)
        maker = RoomMaker(relay.connection)
        for expected in (True, False):
            for job in jobs:
                await relay.frames(job)
            await maker.make(30)
            assert all(await there(relay, jobs)) is expected
        assert all(await there(relay, mine))


async def test_what_is_not_in_the_ledger_yet_stays(own_redis: RedisServer) -> None:
    async with relay_at(own_redis) as relay:
        settled = await ended(relay, "a", 50)
        await asyncio.sleep(0.01)
        await relay.connection.command("XADD", redis_keys.UNSETTLED, "*", "job", "x", "usage", "")
        later = [await job_of(relay, "a")]
        await relay.run(await relay.claim())
        await bound(relay, 1.2)
        await RoomMaker(relay.connection).make(30)

        assert all(await there(relay, later))
        assert False in await there(relay, settled)


async def test_a_maintainer_that_dies_midway_leaves_whole_jobs(own_redis: RedisServer) -> None:
    async with relay_at(own_redis) as relay:
        a = await ended(relay, "a", 300)
        await bound(relay, 1.2)
        first = RoomMaker(relay.connection)
        while all(await there(relay, a)):
            await first.make(0.001)
        for job, is_there in zip(a, await there(relay, a), strict=True):
            assert await keys_of(relay, job) == (4 if is_there else 0)
        await RoomMaker(relay.connection).make(30)
        used, limit = await relay.connection.memory()

        assert used < 0.85 * limit


async def test_a_full_redis_takes_jobs_of_others_again(own_redis: RedisServer) -> None:
    async with relay_at(own_redis) as relay:
        await ended(relay, "a", 300)
        mine = await ended(relay, "b", 2)
        await bound(relay, 1.05)
        with pytest.raises(RelayFull):
            await job_of(relay, "b")
        await relay.reconciler.reconcile()
        for _ in range(20):
            await relay.reconciler.reconcile()

        assert await job_of(relay, "b")
        assert all(await there(relay, mine))


async def test_what_ended_in_a_full_redis_gets_into_the_ledger_and_goes(
    own_redis: RedisServer,
) -> None:
    async with relay_at(own_redis) as relay:
        jobs = [await job_of(relay, "a") for _ in range(150)]
        await bound(relay, 1.01)
        for _ in jobs:
            await relay.run(await relay.claim(), Delta(content=TEXT))
        for _ in range(10):
            await relay.reconciler.reconcile()
        today, day = datetime.now(UTC).date(), timedelta(days=1)
        query = UsageQuery(today - day, today + day, ("tenant",))
        used = await Ledger(relay.connection).read(query)

        assert False in await there(relay, jobs)
        assert used["a",].requests == 150
        assert await job_of(relay, "b")


async def test_dead_letters_go_too(own_redis: RedisServer) -> None:
    async with relay_at(own_redis) as relay:
        jobs = []
        for _ in range(100):
            jobs.append(await job_of(relay, "a", max_attempts=1))
            await relay.leases.end(QUEUE, jobs[-1], WorkerLost("it died"), dead=True)
        await bound(relay, 1.2)
        await RoomMaker(relay.connection).make(30)
        dead = await relay.connection.command("ZRANGE", redis_keys.DEAD, 0, -1)

        assert await there(relay, [id.decode() for id in dead]) == [True] * len(dead)
        assert 0 < len(dead) < 100


async def test_it_can_be_switched_off(own_redis: RedisServer) -> None:
    async with relay_at(own_redis, memory_high_water=1.0) as relay:
        jobs = await ended(relay, "a", 30)
        await bound(relay, 1.2)
        await RoomMaker(relay.connection).make(5)

        assert all(await there(relay, jobs))


async def test_what_goes_is_counted_and_logged(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with relay_at(own_redis) as relay:
        metrics = ProcessMetrics("worker", MetricsSettings())
        relay.connection.observer = metrics
        jobs = await ended(relay, "a", 200)
        await bound(relay, 0.9)
        await RoomMaker(relay.connection).make(30)
        gone = (await there(relay, jobs)).count(False)

    counted = f'jobs_removed_early_total{{tenant="a"}} {gone}.0'
    assert counted in metrics.text().decode()
    assert f"the oldest {gone} ended jobs of tenant a were removed" in caplog.text


async def test_who_fills_it_with_what_may_not_go_is_refused_alone(
    own_redis: RedisServer,
) -> None:
    async with relay_at(own_redis, memory_keeps_s=300.0) as relay:
        await ended(relay, "a", 300)
        await ended(relay, "b", 2)
        await bound(relay, 0.93)
        await RoomMaker(relay.connection).make(30)
        state = await read_state(relay.connection)
        assert state is not None
        relay.connection.crowding = frozenset(state.refused)

        assert state.refused == ("a",)
        assert await job_of(relay, "b")
        with pytest.raises(QueueFull) as refused:
            await job_of(relay, "a")
        assert refused.value.facts["scope"] == "tenant"


@pytest.mark.parametrize(("waiting", "slowed"), [(0, []), (300, ["a"])])
async def test_only_who_does_not_get_small_by_waiting_has_a_job_run_now_and_then(
    own_redis: RedisServer, waiting: int, slowed: list[str]
) -> None:
    async with relay_at(own_redis, memory_keeps_s=300.0) as relay:
        await ended(relay, "a", 300 - waiting)
        for _ in range(waiting):
            await job_of(relay, "a", TEXT * 2)
        await bound(relay, 0.93)
        await RoomMaker(relay.connection).make(30)
        await look(relay.connection)

        assert relay.connection.crowding == {"a"}
        assert sorted(relay.connection.slowed) == slowed


async def test_rows_that_a_batch_needs_do_not_make_it_wait_for_ever(
    own_redis: RedisServer,
) -> None:
    async with relay_at(own_redis, memory_keeps_s=300.0) as relay:
        for job in await ended(relay, "a", 300):
            await relay.connection.command("HSET", redis_keys.record(job), "needed", "1")
        await bound(relay, 0.93)
        await RoomMaker(relay.connection).make(30)
        await look(relay.connection)

        assert relay.connection.slowed == {"a"}


async def test_nobody_is_refused_once_there_is_room(own_redis: RedisServer) -> None:
    async with relay_at(own_redis, memory_keeps_s=300.0) as relay:
        await ended(relay, "a", 300)
        await bound(relay, 0.93)
        maker = RoomMaker(relay.connection)
        await maker.make(30)
        await bound(relay, 0.5)
        await maker.make(30)

        assert await read_state(relay.connection) is None


async def test_without_keys_nobody_is_refused(own_redis: RedisServer) -> None:
    async with relay_at(own_redis, memory_keeps_s=300.0) as relay:
        await ended(relay, "default", 300)
        await bound(relay, 0.93)
        await RoomMaker(relay.connection).make(30)
        state = await read_state(relay.connection)

        assert state is not None
        assert state.refused == ()


async def test_a_tenant_takes_a_quarter_of_what_is_left_between_two_looks(
    own_redis: RedisServer,
) -> None:
    async with relay_at(own_redis) as relay:
        used, _ = await relay.connection.memory()
        await relay.connection.command("CONFIG", "SET", "maxmemory", used + 16 * KIB * KIB)

        async def taken(tenant: str, *, jobs: int) -> int:
            for count in range(jobs):
                # In queues of their own, whose bounds they do not reach.
                queue, text = f"{tenant}{count}.chat", "x" * KIB * KIB
                try:
                    await relay.queue.enqueue(chat(text), queue=queue, tenant=Tenant(name=tenant))
                except QueueFull:
                    return count
            return jobs

        await relay.connection.fit_queues()
        assert await taken("a", jobs=12) == 3
        assert await taken("b", jobs=2) == 2
        assert await taken("default", jobs=5) == 5
        await relay.connection.fit_queues()
        assert 0 < await taken("a", jobs=12) < 3
        assert await taken("b", jobs=1) == 1


async def test_idempotency_keys_of_jobs_that_went_go_too(own_redis: RedisServer) -> None:
    # A key was looked at half a day later, so that a small Redis filled with them, for everybody.
    async with relay_at(own_redis) as relay:
        say, tenant = relay.connection.command, Tenant(name="a")
        for at in range(450):
            request = chat(TEXT)
            key = Key.of("a", f"k{at}", request)
            its = Once(uuid4().hex, key, Idempotency(relay.connection).times)
            await relay.queue.enqueue_once(request, its, queue=QUEUE, tenant=tenant)
            await relay.run(await relay.claim())
            await say("HINCRBYFLOAT", key.name, "at", -100)
        await say("DEL", redis_keys.UNSETTLED)
        await bound(relay, 0.95)
        await RoomMaker(relay.connection).make(5)
        left = await say("ZCARD", redis_keys.RECENT)
        await bound(relay, 0.95)
        await RoomMaker(relay.connection).make(5)
        keys = await say("KEYS", redis_keys.idempotency("a", "*"))
        listed = await say("ZCARD", redis_keys.IDEMPOTENCY)

    assert 200 < left < 450
    assert len(keys) == listed == left
