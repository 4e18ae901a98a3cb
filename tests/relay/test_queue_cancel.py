"""Cancel while no worker has the job: it is final at once, and no queue has an entry of it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from support.dying import died
from support.queues import left_in_queues
from support.relay import QUEUE, Relay, relay_on, words

from contract.errors import LeaseLost
from contract.events import Cancelled, Done, Queued, Started
from relay.leases import Holder
from relay.publisher import AttemptLog
from relay.scripts import jobs


async def queued(relay: Relay) -> str:
    return await relay.enqueue()


async def claimed(relay: Relay) -> str:
    """Its worker died between claim and start."""
    job = await relay.enqueue()
    claim = await relay.claims.claim(QUEUE, "w1")
    assert claim is not None
    assert claim.job_id == job
    return job


async def spoken(relay: Relay) -> AttemptLog:
    await relay.enqueue()
    attempt_log = relay.attempt_log(await relay.claim())
    for word in words(3):
        attempt_log.append(word)
    await attempt_log.flush()
    return attempt_log


async def running(relay: Relay) -> str:
    """Its worker died, and its lease has not expired."""
    return (await spoken(relay)).id


async def half_handed_over(relay: Relay) -> str:
    """The maintainer died between hand_over and give_back."""
    job = (await spoken(relay)).id
    await relay.connection.call(
        jobs.hand_over(job, 1, Queued(queue=QUEUE), counts=True, is_lost=True)
    )
    return job


async def waiting_again(relay: Relay) -> str:
    job = (await spoken(relay)).id
    assert await relay.leases.hand_over(QUEUE, job, 1, reason="", counts=True)
    return job


async def delayed(relay: Relay) -> str:
    """Between two attempts."""
    job = (await spoken(relay)).id
    assert await relay.leases.hand_over(QUEUE, job, 1, reason="", counts=True, delay_s=0.05)
    return job


@pytest.mark.parametrize(
    "phase", [queued, claimed, running, half_handed_over, waiting_again, delayed]
)
async def test_it_is_final_at_once_and_leaves_nothing(
    phase: Callable[[Relay], Awaitable[str]], redis_url: str
) -> None:
    async with relay_on(redis_url, lease_s=0.05) as relay:
        job = await phase(relay)
        said = (await relay.result(job)).content
        record = await relay.queue.cancel(job, by="caller", reason="enough")
        left = await left_in_queues(relay)
        again = await relay.queue.cancel(job, by="another client")
        await asyncio.sleep(0.1)  # leases and delays of before are over
        await relay.leases.reap()
        await relay.reconciler.reconcile()
        result = await relay.result(job)

        assert ("cancelled", record) == (record.status, again)
        assert left == await left_in_queues(relay) == []
        assert await relay.start_next(QUEUE, "w2") is None
        assert ("cancelled", said) == (result.status, result.content)
        assert (await relay.frames(job))[-1].event.reason == "enough"


@pytest.mark.parametrize("phase", [running, half_handed_over, waiting_again, delayed])
async def test_events_before_the_cancel_can_be_read(
    phase: Callable[[Relay], Awaitable[str]], redis_url: str
) -> None:
    async with relay_on(redis_url) as relay:
        job = await phase(relay)
        await relay.queue.cancel(job, by="caller")

        assert (await relay.result(job)).content == "w0 w1 w2 "


async def test_a_claim_that_is_slower_than_the_cancel_begins_nothing(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job = await claimed(relay)
        await relay.queue.cancel(job, by="caller")
        started = Started(attempt=1, worker="w1", backend="scripted", nonce="n")
        answer = await relay.connection.call(jobs.start(job, started))

        assert answer is None
        assert [frame.type for frame in await relay.frames(job)] == ["queued", "cancelled"]


async def half_cancelled(relay: Relay, job: str) -> None:
    """Its shim died between end and release."""
    await relay.connection.call(jobs.end(job, Cancelled(by="caller"), relay.connection.settings))


@pytest.mark.parametrize("phase", [queued, claimed, running, waiting_again, delayed])
async def test_a_shim_that_dies_in_a_cancel_is_finished_by_the_next_cancel(
    phase: Callable[[Relay], Awaitable[str]], redis_url: str
) -> None:
    async with relay_on(redis_url) as relay:
        job = await phase(relay)
        await half_cancelled(relay, job)
        before = await left_in_queues(relay)
        record = await relay.queue.cancel(job, by="caller")

        assert record.status == "cancelled"
        assert before
        assert await left_in_queues(relay) == []


async def test_its_worker_finds_the_cancel_when_it_renews(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job, other = await claimed(relay), await claimed(relay)
        await half_cancelled(relay, job)

        assert {job} == await relay.leases.renew("w1", {QUEUE: [(other, 1), (job, 1)]})


@pytest.mark.parametrize("phase", [queued, claimed, running, waiting_again, delayed])
async def test_or_by_any_worker(phase: Callable[[Relay], Awaitable[str]], redis_url: str) -> None:
    async with relay_on(redis_url, lease_s=0.05) as relay:
        await half_cancelled(relay, await phase(relay))
        await asyncio.sleep(0.1)  # leases and delays of before are over
        await relay.leases.reap()

        assert await relay.start_next(QUEUE, "w2") is None
        assert await left_in_queues(relay) == []


async def test_a_letter_that_is_dead_stays_what_it_is(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        record = await died(relay)

        assert record == await relay.queue.cancel(record.id, by="caller")
        assert await left_in_queues(relay) == []


async def done(relay: Relay, attempt_log: AttemptLog, after_s: float) -> None:
    await asyncio.sleep(after_s)
    attempt_log.append(Done())
    with suppress(LeaseLost):
        await attempt_log.flush()
        await relay.leases.release(QUEUE, attempt_log.id, Holder(1, "w1"))


async def test_cancels_that_race_with_each_other_and_the_end_agree(redis_url: str) -> None:
    async with relay_on(redis_url) as relay, relay_on(redis_url) as other:
        ends: set[str] = set()
        for at in range(60):
            attempt_log = await spoken(relay)
            cancels = [each.queue.cancel(attempt_log.id, by="caller") for each in (relay, other)]
            _, *told = await asyncio.gather(done(relay, attempt_log, at % 6 * 0.0003), *cancels)
            ends.add(last := (await relay.frames(attempt_log.id))[-1].type)
            assert {last} == {record.status for record in told}

        assert {"done", "cancelled"} == ends
        assert await left_in_queues(relay) == []
