"""A job that arrives at an empty queue is leased to a worker with free slots, without a claim."""

import asyncio
import time

import pytest
from support.relay import QUEUE, Relay, chat, relay_on, words

from contract import redis_keys
from contract.jobs import JobRecord
from relay.claims import Claim, assigned
from relay.leases import Holder
from relay.order import ClaimFilter
from relay.scripts.queues import EndedJob
from relay.subscriber import Subscription


async def next_claim(subscription: Subscription, worker: str = "w1") -> Claim | str:
    async with asyncio.timeout(5):
        while not subscription.messages:
            await subscription.wait(5)
    return assigned(subscription.messages.pop(0), worker)


async def enqueue(relay: Relay, **fields: object) -> JobRecord:
    return (await relay.queue.enqueue(chat(**fields), queue=QUEUE))[0]


async def holders(relay: Relay) -> dict[str, str]:
    held = await relay.connection.command("HGETALL", redis_keys.holders(QUEUE))
    return {id.decode(): holder.decode() for id, holder in held.items()}


async def test_a_job_is_leased_to_a_worker_with_a_free_slot(redis_url: str) -> None:
    async with (
        relay_on(redis_url) as relay,
        relay.subscriber.subscribe(redis_keys.wake_channel("w1")) as messages,
    ):
        messages.catch_up()
        assert await relay.claims.claim(QUEUE, "w1", idle_slots=3) is None
        record = await enqueue(relay, context_length=4096)
        claim = await next_claim(messages)

        assert claim == Claim(QUEUE, "w1", record.id, 1, "m", "m#ctx=4096")
        assert await holders(relay) == {record.id: "1 w1"}
        assert not await relay.claims.have_tickets([QUEUE])
        assert await relay.connection.command("ZCARD", redis_keys.backlog(QUEUE)) == 0
        expires = await relay.connection.command("ZSCORE", redis_keys.leases(QUEUE), record.id)
        assert float(expires) - time.time() == pytest.approx(15, abs=5)

        job = await relay.claims.start(claim)
        assert job is not None
        await relay.run(job, *words(2))
        assert await relay.frames(record.id)
        assert await holders(relay) == {}
        assert await relay.connection.command("HLEN", redis_keys.facts(QUEUE)) == 0


async def test_the_same_enqueue_again_assigns_nothing(redis_url: str) -> None:
    async with (
        relay_on(redis_url) as relay,
        relay.subscriber.subscribe(redis_keys.wake_channel("w1")) as messages,
    ):
        messages.catch_up()
        await relay.claims.claim(QUEUE, "w1", idle_slots=3)
        id = "a" * 32
        for _ in range(2):
            await relay.queue.enqueue(chat(), queue=QUEUE, job_id=id)
        await next_claim(messages)

        assert messages.messages == []


@pytest.mark.parametrize(
    ("claim_filter", "fields"),
    [
        (ClaimFilter(warm=frozenset()), {}),
        (ClaimFilter(resting=frozenset({"m"})), {}),
        (ClaimFilter(failing=frozenset({"m"})), {}),
        (ClaimFilter(only={}), {}),
        (ClaimFilter(batch=False), {}),
        (ClaimFilter(cold=False), {}),
        (ClaimFilter(), {"priority": "batch"}),
    ],
)
async def test_a_worker_that_may_not_run_any_job_is_woken_and_claims(
    redis_url: str, claim_filter: ClaimFilter, fields: dict[str, str]
) -> None:
    async with (
        relay_on(redis_url) as relay,
        relay.subscriber.subscribe(redis_keys.wake_channel("w1")) as messages,
    ):
        messages.catch_up()
        await relay.claims.claim(QUEUE, "w1", claim_filter, idle_slots=3)
        await enqueue(relay, **fields)

        assert await next_claim(messages) == QUEUE
        assert await holders(relay) == {}


async def test_no_job_overtakes_one_that_waits(redis_url: str) -> None:
    async with (
        relay_on(redis_url) as relay,
        relay.subscriber.subscribe(redis_keys.wake_channel("w1")) as messages,
    ):
        messages.catch_up()
        first = await enqueue(relay)
        # As a claim that found nothing would have done just before.
        await relay.connection.command(
            "ZADD", redis_keys.idle(QUEUE), 3, relay.claims.idle_member("w1", takes_any=True)
        )
        await enqueue(relay)

        assert await holders(relay) == {}
        claim = await relay.claims.claim(QUEUE, "w1")
        assert claim is not None
        assert claim.job_id == first.id


async def test_a_worker_that_does_not_listen_gets_no_job(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await relay.claims.claim(QUEUE, "gone", idle_slots=3)
        await enqueue(relay)

        assert await holders(relay) == {}
        assert await relay.claims.have_tickets([QUEUE])
        assert not await relay.connection.command("EXISTS", redis_keys.idle(QUEUE))


async def test_a_worker_gets_no_more_jobs_than_it_has_slots(redis_url: str) -> None:
    async with (
        relay_on(redis_url) as relay,
        relay.subscriber.subscribe(redis_keys.wake_channel("w1")),
    ):
        await relay.claims.claim(QUEUE, "w1", idle_slots=2)
        for _ in range(3):
            await enqueue(relay)

        assert len(await holders(relay)) == 2
        assert await relay.connection.command("ZCARD", redis_keys.backlog(QUEUE)) == 1
        assert await relay.claims.have_tickets([QUEUE])


async def test_a_job_that_its_worker_cannot_start_returns_to_the_backlog(redis_url: str) -> None:
    async with (
        relay_on(redis_url) as relay,
        relay.subscriber.subscribe(redis_keys.wake_channel("w1")) as messages,
    ):
        messages.catch_up()
        await relay.claims.claim(QUEUE, "w1", idle_slots=1)
        record = await enqueue(relay)
        claim = await next_claim(messages)
        assert isinstance(claim, Claim)
        assert await relay.leases.give_back(QUEUE, claim.job_id, claim.attempt, claim.attempt)

        assert await relay.claims.have_tickets([QUEUE])
        assert (await relay.claim("w2")).record.id == record.id


async def test_a_job_whose_assignment_is_lost_uses_up_no_try(redis_url: str) -> None:
    async with (
        relay_on(redis_url, lease_s=0.3, renew_s=0.1) as relay,
        relay.subscriber.subscribe(redis_keys.wake_channel("w1")),
    ):
        await relay.claims.claim(QUEUE, "w1", idle_slots=1)
        record = await enqueue(relay, max_attempts=1)
        async with asyncio.timeout(5):
            while not await relay.leases.reap():
                await asyncio.sleep(0.1)
        job = await relay.claim("w2")

        assert job.record.id == record.id
        await relay.run(job, worker="w2")
        assert (await relay.frames(record.id))[-1].type == "done"


async def test_a_worker_whose_lease_expired_is_assigned_nothing_more(redis_url: str) -> None:
    # A frozen worker stays subscribed: without this it would get every job of the queue.
    async with (
        relay_on(redis_url, lease_s=0.3, renew_s=0.1) as relay,
        relay.subscriber.subscribe(redis_keys.wake_channel("w1")),
    ):
        await relay.claims.claim(QUEUE, "w1", idle_slots=100)
        await enqueue(relay)
        async with asyncio.timeout(5):
            while not await relay.leases.reap():
                await asyncio.sleep(0.1)

        assert not await relay.connection.command("EXISTS", redis_keys.idle(QUEUE))


async def test_a_claim_releases_the_job_that_has_ended(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        first, second = [await enqueue(relay) for _ in range(2)]
        job = await relay.claim("w1")
        ended = EndedJob(first.id, str(Holder(job.attempt, "w1")))
        claim = await relay.claims.claim(QUEUE, "w1", ended=ended)

        assert claim is not None
        assert claim.job_id == second.id
        assert await holders(relay) == {second.id: "1 w1"}
        ended_now = await relay.connection.command("MGET", *relay.queue.positions.drained(QUEUE))
        assert sum(int(count or 0) for count in ended_now) == 1
