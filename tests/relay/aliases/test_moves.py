"""Moves of a job to the next target of its alias: one log, one queue, whoever dies in between."""

import asyncio
import contextlib
import time
from typing import Any

import pytest
from support.queues import nothing_waits
from support.relay import Relay, chat, relay_on, saved, words
from support.shim import Stage

from contract import redis_keys
from contract.errors import RelayUnavailable
from contract.events import Delta, Done
from contract.requests import AliasTarget, Route
from relay.aliases.moves import MovableJob, Moves
from relay.claims import Claim, StartedJob
from relay.connection import ScriptCall
from relay.leases import Holder
from relay.scheduling.pauses import QueuePauses
from relay.scripts.loader import load

FIRST, SECOND = "one.chat", "two.chat"


def route(*targets: AliasTarget) -> Route:
    return Route(alias="fast", targets=targets)


def target(
    model: str = "m1", backend: str = "one", wait_s: float = 0.0, **force: Any
) -> AliasTarget:
    return AliasTarget(model=model, backend=backend, wait_s=wait_s, force=force)


TWO = (target(), target("m2", "two", temperature=1))
SAME_QUEUE = (target(), target("m2", "one", context_length=512))


async def enqueued(relay: Relay, *targets: AliasTarget) -> str:
    record, _ = await relay.queue.enqueue(chat(route=route(*targets)), queue=FIRST)
    return record.id


async def started(relay: Relay, queue: str = FIRST) -> StartedJob:
    job = await relay.start_next(queue, "w1")
    assert job is not None
    return job


async def movable(relay: Relay, job: StartedJob) -> MovableJob:
    found = await Moves(relay.connection).movable(job.record, job.request)
    assert found is not None
    return found


async def announce(relay: Relay, *backends: str) -> None:
    for backend in backends:
        await Stage(None, relay).announce(backend)  # type: ignore[arg-type]


async def test_a_job_that_moves_keeps_its_log_and_fences_its_holder(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job_id = await enqueued(relay, *TWO)
        job = await started(relay)
        zombie = relay.attempt_log(job)
        assert await Moves(relay.connection).move(await movable(relay, job), 1, "it is down")
        second = await started(relay, SECOND)
        zombie.append(Delta(content="from the first"))
        with contextlib.suppress(Exception):
            await zombie.flush()
        await relay.run(second, *words(2))
        events = [frame.event for frame in await relay.frames(job_id)]

        assert [event.type for event in events] == [
            "queued",
            "started",
            "queued",
            "started",
            "delta",
            "delta",
            "done",
        ]
        assert (events[1].model, events[1].backend, events[1].attempt) == ("m1", "one", 1)
        assert (events[2].queue, events[2].reason) == (SECOND, "it is down")
        assert (events[3].model, events[3].backend, events[3].attempt) == ("m2", "two", 2)
        record = await relay.records.get(job_id)
        assert (
            record.alias, record.model, record.backend, record.target,
        ) == ("fast", "m2", "two", 1)  # fmt: skip
        await nothing_waits(relay)


async def test_a_job_that_waits_too_long_moves_to_a_target_that_is_served(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job_id = await enqueued(relay, target(), target("m2", "away"), target("m3", "two"))
        await announce(relay, "two")
        async with asyncio.timeout(5):
            while (await relay.records.get(job_id)).queue == FIRST:
                await relay.reconciler.reconcile()
        second = await started(relay, SECOND)

        assert (second.record.model, second.record.target) == ("m3", 2)
        await relay.run(second)
        assert await relay.start_next(FIRST, "w1") is None
        await nothing_waits(relay)


async def test_a_job_waits_where_it_is_while_nobody_serves_another_target(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job_id = await enqueued(relay, *TWO)
        await asyncio.sleep(0.01)
        await relay.reconciler.reconcile()

        assert (await relay.records.get(job_id)).queue == FIRST
        assert (await started(relay)).record.id == job_id


async def test_a_job_for_later_waits_since_it_is_due(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        targets = (target(wait_s=0.2), target("m2", "two"))
        at = time.time() + 0.3
        record, _ = await relay.queue.enqueue(
            chat(route=route(*targets), not_before=at), queue=FIRST
        )
        await announce(relay, "two")
        async with asyncio.timeout(10):
            while (await relay.records.get(record.id)).queue == FIRST:
                await relay.leases.reap()
                await relay.reconciler.reconcile()
                await asyncio.sleep(0.01)

        assert time.time() >= at + 0.2
        assert (await started(relay, SECOND)).record.id == record.id


async def test_a_job_does_not_move_to_a_paused_queue(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job_id = await enqueued(relay, target(), target("m2", "two"), target("m3", "three"))
        await announce(relay, "two", "three")
        await QueuePauses(relay.connection).pause(SECOND)
        async with asyncio.timeout(5):
            while (record := await relay.records.get(job_id)).queue == FIRST:
                await relay.reconciler.reconcile()

        assert (record.queue, record.model, record.target) == ("three.chat", "m3", 2)


async def test_a_message_that_moves_stays_in_its_conversation(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        its = route(*TWO)
        for _ in range(2):
            await relay.queue.enqueue(
                chat(route=its, conversation="k", conversation_policy="queue"), queue=FIRST
            )
        await announce(relay, "two")
        first = await started(relay)
        async with asyncio.timeout(5):
            while await relay.connection.command("ZCARD", redis_keys.backlog(FIRST)):
                await relay.reconciler.reconcile()
        early = await relay.start_next(SECOND, "w2")
        await relay.run(first)
        second = await started(relay, SECOND)

        assert early is None
        assert second.record.target == 1


async def test_a_job_with_output_does_not_move(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job_id = await enqueued(relay, *TWO)
        await announce(relay, "two")
        job = await started(relay)
        log = relay.attempt_log(job)
        log.append(Delta(content="a word"))
        await log.flush()
        assert await Moves(relay.connection).movable(job.record, job.request) is None
        await relay.leases.hand_over(FIRST, job_id, 1, reason="it broke", counts=False)
        await relay.reconciler.reconcile()

        assert (await relay.records.get(job_id)).queue == FIRST
        assert await relay.connection.command("ZRANGE", redis_keys.MOVABLE, 0, -1) == []


async def test_a_cancelled_job_does_not_move(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job_id = await enqueued(relay, *TWO)
        job = await started(relay)
        await relay.queue.cancel(job_id, by="test")

        assert not await Moves(relay.connection).move(await movable(relay, job), 1, "it is down")
        await nothing_waits(relay)


@pytest.mark.parametrize("targets", [TWO, SAME_QUEUE])
@pytest.mark.parametrize("until", ["it waits", "it is claimed", "it is started"])
async def test_a_move_that_is_repeated_has_no_second_effect(
    redis_url: str, targets: tuple[AliasTarget, ...], until: str
) -> None:
    async with relay_on(redis_url) as relay:
        await enqueued(relay, *targets, target("m3", "three"))
        for _ in range(2):
            await relay.queue.enqueue(chat(), queue=f"{targets[1].backend}.chat")
        moves, job = Moves(relay.connection), await movable(relay, await started(relay))
        assert await moves.move(job, 1, "it is down")
        await relay.queue.enqueue(chat(), queue=f"{targets[1].backend}.chat")
        claim = await claimed(relay, job, f"{targets[1].backend}.chat", until)
        before = sorted(await saved(relay))
        again = await moves.move(job, 1, "it is down")

        assert again == (until != "it is started")
        assert sorted(await saved(relay)) == before
        if until == "it is claimed":
            assert claim is not None
            assert await relay.claims.start(claim) is not None


async def claimed(relay: Relay, job: MovableJob, queue: str, until: str) -> Claim | None:
    """Claim all that waits, until this job is claimed, and start it if that is wanted."""
    while until != "it waits":
        claim = await relay.claims.claim(queue, "w2")
        assert claim is not None
        if claim.job_id == job.record.id:
            if until == "it is started":
                assert await relay.claims.start(claim) is not None
            return claim
    return None


async def test_a_job_that_is_cancelled_while_it_moves_is_in_no_queue(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job_id = await enqueued(relay, *TWO)
        job = await movable(relay, await started(relay))
        async with stopping(relay, "queues/enqueue"):
            with pytest.raises(RelayUnavailable):
                await Moves(relay.connection).move(job, 1, "it is down")
        await relay.queue.cancel(job_id, by="test")

        assert [sum(frame.is_last for frame in await relay.frames(job_id))] == [1]
        await nothing_waits(relay)


async def test_the_lease_of_a_job_that_has_moved_leads_to_its_new_queue(redis_url: str) -> None:
    async with relay_on(redis_url, lease_s=0.05) as relay:
        await enqueued(relay, *TWO)
        job = await movable(relay, await started(relay))
        async with stopping(relay, "queues/supersede"):
            with pytest.raises(RelayUnavailable):
                await Moves(relay.connection).move(job, 1, "it is down")
        await asyncio.sleep(0.06)
        await relay.leases.reap()

        assert await relay.start_next(FIRST, "w2") is None
        await relay.run(await started(relay, SECOND))
        await nothing_waits(relay)


@contextlib.asynccontextmanager
async def stopping(relay: Relay, script: str, *, after: bool = False) -> Any:
    """Let the process die before, or just after, it runs this script."""
    call, text = relay.connection.call, load(script)

    async def dying(each: ScriptCall[Any]) -> Any:
        if each.script != text:
            return await call(each)
        if after:
            await call(each)
        raise RelayUnavailable("the process has died")

    relay.connection.call = dying  # type: ignore[method-assign]
    try:
        yield
    finally:
        relay.connection.call = call  # type: ignore[method-assign]


STEPS = ("jobs/move", "queues/supersede", "queues/enqueue", "queues/withdraw")


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("script", STEPS)
@pytest.mark.parametrize("targets", [TWO, SAME_QUEUE])
@pytest.mark.parametrize("waits", [False, True])
async def test_an_interrupted_move_is_completed_or_undone(
    redis_url: str, targets: tuple[AliasTarget, ...], script: str, *, waits: bool, after: bool
) -> None:
    async with relay_on(redis_url, lease_s=0.05) as relay:
        job_id = await enqueued(relay, *targets, target("m3", "three"))
        await announce(relay, "one", "two")
        async with stopping(relay, script, after=after):
            with contextlib.suppress(RelayUnavailable):
                if waits:
                    await Moves(relay.connection).move_waiting()
                else:
                    job = await movable(relay, await started(relay))
                    await Moves(relay.connection).move(job, 1, "it is down")
        last = await finished(relay, job_id)
        frames = await relay.frames(job_id)

        assert (last.record.model, last.record.target) in {("m1", 0), ("m2", 1)}
        assert last.record.queue == (
            FIRST if last.record.target == 0 else f"{targets[1].backend}.chat"
        )
        assert [frame.type for frame in frames if frame.is_last] == ["done"]
        assert [frame.id for frame in frames] == sorted(frame.id for frame in frames)
        await nothing_waits(relay)


async def finished(relay: Relay, job_id: str) -> StartedJob:
    """Run a job to its end, in whichever queue it is found, as a fleet that maintains itself."""
    async with asyncio.timeout(10):
        while True:
            await relay.connection.command("ZADD", redis_keys.LIVE, "XX", 1, job_id)
            await relay.connection.command("ZREM", redis_keys.MOVABLE, job_id)
            await relay.leases.reap()
            await relay.reconciler.reconcile()
            for queue in (FIRST, SECOND):
                claim = await relay.claims.claim(queue, "w2")
                job = None if claim is None else await relay.claims.start(claim)
                if job is not None:
                    assert claim is not None
                    assert queue == job.record.queue
                    assert (claim.model, job.record.id) == (job.record.model, job_id)
                    log = relay.attempt_log(job)
                    log.append(Done())
                    await log.flush()
                    await relay.leases.release(queue, job_id, Holder(job.attempt, "w2"))
                    for each in (FIRST, SECOND):
                        assert await relay.start_next(each, "w2") is None
                    await asyncio.sleep(0.06)
                    await relay.leases.reap()
                    return job
            await asyncio.sleep(0.02)
