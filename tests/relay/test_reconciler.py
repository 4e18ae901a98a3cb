"""The reconciler: deadlines in the queue, lost jobs are restored, lists are trimmed."""

import asyncio
import time
from contextlib import suppress

import pytest
from support.relay import QUEUE, Relay, relay_on

from contract import redis_keys
from relay.reconciler import Maintainer, Reconciler


async def test_a_job_past_its_deadline_fails_in_the_queue(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue(deadline_s=0.05)
        async with asyncio.timeout(5):
            while (await relay.records.get(job)).status == "queued":
                await relay.reconciler.reconcile()
        frames = await relay.frames(job)

        assert frames[-1].event.code == "deadline_exceeded"
        assert None is await relay.start_next(QUEUE, "w1")


async def test_what_a_queue_lost_is_given_back_from_the_ledger(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        waiting, running = await relay.enqueue(), await relay.enqueue()
        assert waiting == (await relay.claim()).record.id
        await lose_queue(relay)
        for job in (waiting, running):
            await age(relay, job)
        assert await relay.reconciler.reconcile() == 2

        claims = [await relay.claim() for _ in range(2)]
        assert {(waiting, 2), (running, 1)} == {(c.record.id, c.attempt) for c in claims}


async def lose_queue(relay: Relay) -> None:
    for name in ("backlog", "facts", "leases", "holders"):
        await relay.connection.command("DEL", f"fleet:q:{QUEUE}:{name}")
    await relay.connection.command("DEL", QUEUE)


async def age(relay: Relay, job: str) -> None:
    """Make a job old enough that the reconciler checks it."""
    record = f"fleet:j:{job}:record"
    created_at = float(await relay.connection.command("HGET", record, "created_at"))
    await relay.connection.command("ZADD", "fleet:live", created_at - 60, job)


async def test_a_list_forgets_jobs_whose_record_has_expired(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        gone, kept = await relay.enqueue(), await relay.enqueue()
        await relay.connection.command("DEL", f"fleet:j:{gone}:record")
        await relay.reconciler.reconcile()

        assert [kept.encode()] == await relay.connection.command("ZRANGE", "fleet:recent", 0, -1)


async def test_jobs_that_are_kept_for_long_keep_no_others_in_a_list(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Five hundred dead letters of one tenant, kept for a week, stood before everybody's jobs.
    monkeypatch.setattr("relay.reconciler._AT_ONCE", 4)
    async with relay_on(redis_url) as relay:
        kept = [await relay.enqueue() for _ in range(9)]
        gone = [await relay.enqueue() for _ in range(5)]
        await relay.connection.command("DEL", *(redis_keys.record(id) for id in gone))
        reconciler = Reconciler(relay.connection)
        for _ in range(8):
            await reconciler.reconcile()
        left = await relay.connection.command("ZRANGE", redis_keys.RECENT, 0, -1)

    assert [id.decode() for id in left] == kept


async def calls(relay: Relay) -> int:
    told = await relay.connection.command("INFO", "commandstats")
    return sum(int(each["calls"]) for each in told.values())


async def test_one_of_many_is_it(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        many = [Maintainer(relay.connection, f"w{at}") for at in range(5)]

        assert [await each.acquire() for each in many] == [True, False, False, False, False]
        assert await many[0].acquire()


async def test_another_takes_over_when_it_falls_silent(redis_url: str) -> None:
    async with relay_on(redis_url, reap_s=0.1) as relay:
        assert await Maintainer(relay.connection, "w1").acquire()
        other, began = Maintainer(relay.connection, "w2"), time.monotonic()
        async with (
            relay.subscriber.subscribe(redis_keys.MAINTAINER_CHANNEL) as subscription,
            asyncio.timeout(5),
        ):
            while not await other.acquire():
                await other.wait_until_free(subscription)

        assert time.monotonic() - began >= 0.3


async def test_another_takes_over_at_once_when_it_leaves(redis_url: str) -> None:
    async with relay_on(redis_url, reap_s=60) as relay:
        one, other = (Maintainer(relay.connection, name) for name in ("w1", "w2"))
        await one.acquire()
        async with (
            relay.subscriber.subscribe(redis_keys.MAINTAINER_CHANNEL) as subscription,
            asyncio.timeout(5),
        ):
            waiting = asyncio.create_task(other.wait_until_free(subscription))
            await asyncio.sleep(0)
            await one.release()
            await waiting

            assert await other.acquire()


async def test_one_that_is_cancelled_before_it_knows_whether_it_holds_the_lease_gives_it_up(
    redis_url: str,
) -> None:
    async with relay_on(redis_url) as relay:
        await Maintainer(relay.connection, "w1").acquire()  # what the reply would have said
        maintainer = Maintainer(relay.connection, "w1")
        acquiring = asyncio.create_task(maintainer.acquire())
        await asyncio.sleep(0)
        acquiring.cancel()
        with suppress(asyncio.CancelledError):
            await acquiring
        await maintainer.release()

        assert not await maintainer.is_taken()


async def test_a_check_of_a_hundred_idle_queues_costs_a_few_commands(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        for at in range(100):
            await relay.connection.command("ZADD", redis_keys.QUEUES, time.time(), f"b{at}.chat")
        maintainer = Maintainer(relay.connection, "w1")
        for _ in range(2):  # the first loads scripts that no test before it has asked for
            before = await calls(relay)
            await maintainer.acquire()
            await relay.leases.reap()
            await relay.reconciler.reconcile()
            cost = await calls(relay) - before - 1  # the question itself

        assert cost <= 21


async def test_what_waits_in_one_of_many_queues_is_woken(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        for at in range(150):
            await relay.connection.command("ZADD", redis_keys.QUEUES, time.time(), f"b{at}.chat")
        await relay.enqueue()
        await relay.connection.command("DEL", QUEUE)
        await relay.leases.reap()

        assert await relay.connection.command("LLEN", QUEUE) == 1
