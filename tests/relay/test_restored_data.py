"""Redis starts again from older data: a worker from before has an attempt that another has now.

The number of the attempt is the same, so that only its nonce tells the two apart, or, before the
attempt is started, the worker. What the first one does may not take the job from the second.
Subjects: relay/lua/jobs, relay/lua/queues/give_back.lua.
"""

from typing import NamedTuple

from support.relay import Relay, chat, relay_on, restore, saved, words

from contract.requests import AliasTarget, Route
from relay.aliases.moves import MovableJob, Moves
from relay.claims import Claim, StartedJob
from relay.leases import Holder

QUEUE = "one.chat"
ROUTE = Route(
    alias="fast",
    targets=tuple(AliasTarget(model="m", backend=name, wait_s=0.0) for name in ("one", "two")),
)


class Two(NamedTuple):
    """One attempt, of two workers."""

    claim: Claim
    """That of the first one."""
    before: StartedJob
    now: StartedJob


async def two_workers(relay: Relay) -> Two:
    await relay.queue.enqueue(chat(max_attempts=1, route=ROUTE), queue=QUEUE)
    copy = await saved(relay)
    claim = await relay.claims.claim(QUEUE, "w1")
    assert claim is not None
    before = await relay.claims.start(claim)
    await restore(relay, copy)
    now = await relay.start_next(QUEUE, "w2")
    assert before is not None
    assert now is not None
    assert (before.attempt, before.record.id) == (now.attempt, now.record.id)
    return Two(claim, before, now)


async def keeps_its_job(relay: Relay, job: StartedJob) -> None:
    held = {QUEUE: [(job.record.id, job.attempt)]}
    assert await relay.leases.renew("w2", held) == set()
    assert await relay.start_next(QUEUE, "w3") is None
    await relay.run(job, *words(2), worker="w2")
    assert (await relay.frames(job.record.id))[-1].type == "done"


async def test_a_worker_from_before_hands_over_no_job_of_another(redis_url: str) -> None:
    for counts in (True, False):
        async with relay_on(redis_url) as relay:
            both = await two_workers(relay)
            assert not await relay.leases.hand_over(
                QUEUE, both.before.record.id, 1, reason="", counts=counts, nonce=both.before.nonce
            )

            await keeps_its_job(relay, both.now)


async def test_a_worker_from_before_hands_over_no_job_that_waits_again(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await relay.queue.enqueue(chat(), queue=QUEUE)
        copy = await saved(relay)
        before = await relay.start_next(QUEUE, "w1")
        assert before is not None
        await restore(relay, copy)
        assert not await relay.leases.hand_over(
            QUEUE, before.record.id, 1, reason="", counts=True, nonce=before.nonce
        )
        now = await relay.start_next(QUEUE, "w2")

        assert now is not None
        assert now.attempt == 1
        await keeps_its_job(relay, now)


async def test_a_worker_from_before_moves_no_job_of_another(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        both = await two_workers(relay)
        job = MovableJob.of(both.before.record, chat(route=ROUTE))
        assert job is not None
        assert not await Moves(relay.connection).move(job, 1, "it is down")

        await keeps_its_job(relay, both.now)


async def test_a_worker_from_before_returns_no_job_of_another(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        both = await two_workers(relay)
        holder = Holder(both.claim.attempt, both.claim.worker)
        assert not await relay.leases.give_back(QUEUE, both.claim.job_id, holder, 1)

        await keeps_its_job(relay, both.now)
