"""A shared key that another program has overwritten halts nobody for long, and loses no job.

Subjects: relay/repair, relay/lua/repair.
"""

import asyncio
import logging
import time
from collections.abc import Callable

import pytest
from support.redis_server import RedisServer
from support.relay import QUEUE, Relay, chat, relay_on

from contract import redis_keys
from contract.errors import RelayUnavailable
from contract.jobs import JobRecord
from relay.claims import StartedJob
from relay.connection import DamagedKey
from relay.position import Positions
from relay.repair.damaged_keys import set_aside_keys
from relay.scheduling.pauses import QueuePauses
from relay.scripts.turn_scripts import report


@pytest.fixture(autouse=True)
def looked_at_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also without a call that has failed, as of a worker with a model in memory."""
    monkeypatch.setattr("relay.repair.damaged_keys._EVERY_S", 0.0)


OF_A_QUEUE: tuple[Callable[[str], str], ...] = (
    redis_keys.backlog, redis_keys.urgent, redis_keys.delayed, redis_keys.facts, redis_keys.leases,
    redis_keys.holders, redis_keys.clocks, redis_keys.load, redis_keys.lines, redis_keys.arrivals,
    redis_keys.idle, redis_keys.paused, redis_keys.scheduled, redis_keys.schedule,
    redis_keys.homes, redis_keys.homes_used, redis_keys.behind, redis_keys.addresses,
)  # fmt: skip
SHARED = (
    *(each(QUEUE) for each in OF_A_QUEUE), redis_keys.line(QUEUE, "m"), QUEUE,
    redis_keys.QUEUES, redis_keys.LIVE, redis_keys.RECENT, redis_keys.DEADLINES,
    redis_keys.FOLLOWED, redis_keys.UNSETTLED, redis_keys.recent("default"),
    redis_keys.spending("default"), redis_keys.reserved("default"), redis_keys.MAINTAINER,
    redis_keys.ROSTER, redis_keys.BLOCKED, redis_keys.PARENTS, redis_keys.DEAD, redis_keys.OUTBOX,
    redis_keys.IDEMPOTENCY, redis_keys.RESERVING, redis_keys.MOVABLE, redis_keys.UNCOMPACTED,
)  # fmt: skip
WRONG = {"string": ("SET", "garbage"), "hash": ("HSET", "a", "b"), "zset": ("ZADD", "1", "a")}


async def overwrite(relay: Relay, key: str) -> None:
    """Another program writes something of another type there."""
    say = relay.connection.command
    wrong = "zset" if await say("TYPE", key) == b"string" else "string"
    if key in (redis_keys.schedule(QUEUE), redis_keys.paused(QUEUE), redis_keys.MAINTAINER):
        wrong = "hash"
    await say("DEL", key)
    await say(WRONG[wrong][0], key, *WRONG[wrong][1:])


async def passes(relay: Relay, count: int = 3) -> None:
    """What the maintainer does every `FLEET_REAP_S`."""
    for _ in range(count):
        with relay.connection.passing_over("a lease"):
            await relay.leases.reap()
        await relay.reconciler.reconcile()


async def put(relay: Relay, **fields: object) -> JobRecord:
    record, _ = await relay.queue.enqueue(chat(**fields), queue=QUEUE)
    return record


async def drained(relay: Relay) -> set[str]:
    """Jobs that a worker claims and runs until none is left."""
    found = set()
    while job := await relay.start_next(QUEUE, "w2"):
        found.add(job.record.id)
        await relay.run(job, worker="w2")
    return found


async def tried(relay: Relay) -> None:
    """A client and two workers come, who may be refused."""
    for attempt in (put(relay), relay.leases.renew("w1", {QUEUE: [("0" * 32, 1)]})):
        try:
            await attempt
        except RelayUnavailable:
            continue


async def busy(relay: Relay) -> tuple[StartedJob, set[str]]:
    """A queue with a job that runs, ones that wait, and one for later; returns those that wait."""
    await relay.connection.call(report(QUEUE, "w1", 15, 15, {"address": True}))
    await put(relay)
    running = await relay.claim()
    waiting = [await put(relay), await put(relay, priority="batch")]
    waiting += [await put(relay, conversation="c"), await put(relay, deadline_s=900)]
    later = await put(relay, not_before=time.time() + 1.0)
    return running, {each.id for each in [*waiting, later]}


@pytest.mark.parametrize("key", SHARED)
async def test_a_queue_goes_on_without_an_operator_and_loses_nothing(
    own_redis: RedisServer, key: str, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("relay.reconciler._SETTLED_S", -60)
    caplog.set_level(logging.WARNING)
    async with relay_on(own_redis.url) as relay:
        running, waiting = await busy(relay)
        await overwrite(relay, key)
        await tried(relay)
        await passes(relay)
        lost = await relay.leases.renew("w1", {QUEUE: [(running.record.id, 1)]})
        new = await put(relay)
        await relay.run(running)
        until = time.time() + 1.5
        found: set[str] = set()
        while time.time() < until:
            await passes(relay, 1)
            found |= await drained(relay)
        aside = await set_aside_keys(relay.connection)

    assert lost == set()
    assert {*waiting, new.id} <= found
    assert running.record.id not in found
    assert [each.key for each in aside] == [key]
    assert any(key in text and "set aside" in text for text in caplog.messages)


async def load_of(relay: Relay) -> dict[bytes, bytes]:
    keys = (redis_keys.load(QUEUE), redis_keys.scheduled(QUEUE))
    found = [await relay.connection.command("HGETALL", key) for key in keys]
    return {name + str(at).encode(): n for at, each in enumerate(found) for name, n in each.items()}


@pytest.mark.parametrize("key", [each for each in SHARED if ":q:" in each])
async def test_waiting_jobs_keep_their_order_and_their_counts(
    own_redis: RedisServer, key: str
) -> None:
    async with relay_on(own_redis.url) as relay:
        _, waiting = await busy(relay)
        before = await load_of(relay)
        order = await relay.connection.command("ZRANGE", redis_keys.backlog(QUEUE), 0, -1)
        await overwrite(relay, key)
        await passes(relay)
        after = await relay.connection.command("ZRANGE", redis_keys.backlog(QUEUE), 0, -1)

        assert len(order) == len(waiting) - 1
        assert after == order
        assert await load_of(relay) == before


@pytest.mark.parametrize("facts_too", [False, True])
async def test_a_queue_that_is_damaged_all_over_loses_no_job(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch, *, facts_too: bool
) -> None:
    monkeypatch.setattr("relay.reconciler._SETTLED_S", -60)
    async with relay_on(own_redis.url) as relay:
        running, waiting = await busy(relay)
        for each in OF_A_QUEUE:
            if facts_too or each is not redis_keys.facts:
                await overwrite(relay, each(QUEUE))
        await passes(relay)
        await relay.connection.command("SET", redis_keys.paused(QUEUE), "x", "PX", 1)
        until, found = time.time() + 1.5, set()
        while time.time() < until:
            await passes(relay, 1)
            found |= await drained(relay)

    assert found == {*waiting, running.record.id}


async def test_two_thousand_jobs_are_in_their_places_again(own_redis: RedisServer) -> None:
    many = 2_000
    async with relay_on(own_redis.url) as relay:
        for _ in range(many // 100):
            await asyncio.gather(*(put(relay) for _ in range(100)))
        backlog = redis_keys.backlog(QUEUE)
        order = await relay.connection.command("ZRANGE", backlog, 0, -1)
        for each in (backlog, redis_keys.urgent(QUEUE), redis_keys.LIVE, redis_keys.facts(QUEUE)):
            await overwrite(relay, each)
            await passes(relay, 1)

            assert await relay.connection.command("ZRANGE", backlog, 0, -1) == order
        assert await relay.connection.command("ZCARD", redis_keys.LIVE) == many
        assert await relay.connection.command("HLEN", redis_keys.facts(QUEUE)) == many


@pytest.mark.parametrize("key", [redis_keys.schedule(QUEUE), redis_keys.paused(QUEUE)])
async def test_a_paused_queue_stays_paused(own_redis: RedisServer, key: str) -> None:
    async with relay_on(own_redis.url) as relay:
        pauses = QueuePauses(relay.connection)
        await pauses.pause(QUEUE, reason="new cards")
        await put(relay)
        await overwrite(relay, key)
        await relay.reconciler.reconcile()
        claimed = [await relay.start_next(QUEUE, "w")]
        await passes(relay)
        claimed.append(await relay.start_next(QUEUE, "w"))
        await pauses.resume(QUEUE)
        resumed = await relay.start_next(QUEUE, "w")

    assert claimed == [None, None]
    assert resumed is not None


async def test_what_was_there_is_kept_and_counted_and_named_once(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    counted: list[str] = []
    async with relay_on(own_redis.url) as relay:
        relay.connection.observer.on_set_aside = counted.append  # type: ignore[method-assign]
        key = redis_keys.urgent(QUEUE)
        await relay.connection.command("SET", key, "garbage")
        await put(relay, priority="batch")
        await passes(relay)
        say, aside = relay.connection.command, redis_keys.damaged(key)
        kept, left_s = await say("GET", aside), await say("TTL", aside)

    assert (kept, counted) == (b"garbage", [redis_keys.urgent("*")])
    assert 0 < left_s <= 7 * 86400
    assert caplog.text.count("is set aside as") == 1


async def test_a_call_that_fails_has_the_maintainer_look_at_once(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.repair.damaged_keys._EVERY_S", 60.0)
    monkeypatch.setattr("relay.connection._LOOK_AGAIN_S", 0.0)
    async with relay_on(own_redis.url) as relay:
        for key in (redis_keys.clocks(QUEUE), redis_keys.recent("default"), QUEUE, redis_keys.LIVE):
            await put(relay)
            await overwrite(relay, key)
            with pytest.raises(DamagedKey):
                await put(relay)
            await relay.reconciler.reconcile()
            await put(relay)
        await overwrite(relay, redis_keys.arrivals(QUEUE))
        await Positions(relay.connection).survey([QUEUE])
        await relay.reconciler.reconcile()
        (counts,) = await Positions(relay.connection).survey([QUEUE])

    assert counts.depth >= 8


async def test_tables_that_nothing_else_tells_are_left_to_an_operator(
    own_redis: RedisServer,
) -> None:
    async with relay_on(own_redis.url) as relay:
        for key in (redis_keys.KEYS, redis_keys.ALIASES, redis_keys.WEBHOOKS, "other:program"):
            await relay.connection.command("SET", key, "garbage")
            await relay.connection.command("SADD", redis_keys.SUSPECTS, key)
        await passes(relay)

        assert await set_aside_keys(relay.connection) == []
