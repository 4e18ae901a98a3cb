"""The audit: deadlines pass in the queue, lost jobs come back, lists are trimmed."""

import asyncio

import pytest
from support.relay import QUEUE, Relay, relay_on

from contract import redis_keys
from relay.reconciler import Reconciler


async def test_a_job_past_its_deadline_fails_in_the_queue(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue(deadline_s=0.05)
        async with asyncio.timeout(5):
            while (await relay.records.get(job)).status == "queued":
                await relay.audit.look()
        frames = await relay.heard(job)

        assert frames[-1].event.code == "deadline_exceeded"
        assert None is await relay.start_next(QUEUE, "w1")


async def test_what_a_queue_lost_is_given_back_from_the_ledger(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        waiting, running = await relay.enqueue(), await relay.enqueue()
        assert waiting == (await relay.claim()).record.id
        await lose_queue(relay)
        for job in (waiting, running):
            await age(relay, job)
        assert await relay.audit.look() == 2

        claims = [await relay.claim() for _ in range(2)]
        assert {(waiting, 2), (running, 1)} == {(c.record.id, c.attempt) for c in claims}


async def lose_queue(relay: Relay) -> None:
    for name in ("backlog", "facts", "leases", "holders"):
        await relay.connection.command("DEL", f"fleet:q:{QUEUE}:{name}")
    await relay.connection.command("DEL", QUEUE)


async def age(relay: Relay, job: str) -> None:
    """Make a job old enough that the audit looks at it."""
    record = f"fleet:j:{job}:record"
    created_at = float(await relay.connection.command("HGET", record, "created_at"))
    await relay.connection.command("ZADD", "fleet:live", created_at - 60, job)


async def test_a_list_forgets_jobs_whose_record_has_expired(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        gone, kept = await relay.enqueue(), await relay.enqueue()
        await relay.connection.command("DEL", f"fleet:j:{gone}:record")
        await relay.audit.look()

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
            await reconciler.look()
        left = await relay.connection.command("ZRANGE", redis_keys.RECENT, 0, -1)

    assert [id.decode() for id in left] == kept
