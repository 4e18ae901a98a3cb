"""A worker from before a restore of Redis takes no job from another that has the same attempt.

Subjects: workers/worker.py.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from support.lifetime import lifetime
from support.relay import QUEUE, Relay, chat, relay_on, restore, saved, words

from relay.claims import StartedJob
from workers.lifetime import WorkerLifetime

SLOW = "scripted-story:chunks=3,first=30"


async def begin(relay: Relay) -> str:
    request = chat(max_attempts=1).model_copy(update={"model": SLOW})
    record, _ = await relay.queue.enqueue(request, queue=QUEUE)
    return record.id


async def taken_by_another(relay: Relay) -> StartedJob:
    job = await relay.start_next(QUEUE, "another")
    assert job is not None
    assert job.attempt == 1
    return job


async def keeps_its_job(relay: Relay, job: StartedJob) -> None:
    assert await relay.leases.renew("another", {QUEUE: [(job.record.id, 1)]}) == set()
    await relay.run(job, *words(2), worker="another")
    assert (await relay.frames(job.record.id))[-1].type == "done"


@asynccontextmanager
async def taken_over(
    relay: Relay, one: WorkerLifetime
) -> AsyncGenerator[tuple[StartedJob, asyncio.Task[None]]]:
    """A job that another worker has taken, and the task of the first one, which runs it still."""
    job_id = await begin(relay)
    copy = await saved(relay)
    work = asyncio.create_task(one.worker.work(QUEUE))
    try:
        async with asyncio.timeout(10):
            while (await relay.records.get(job_id)).status != "running":
                await asyncio.sleep(0.01)
        await restore(relay, copy)
        job = await taken_by_another(relay)
        yield job, work
    finally:
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work
    await keeps_its_job(relay, job)


async def test_a_worker_that_stops_leaves_the_job_to_the_other(redis_url: str) -> None:
    async with (
        relay_on(redis_url) as relay,
        lifetime(redis_url) as one,
        taken_over(relay, one),
    ):
        await one.worker.hand_over_all("its worker is shutting down")


async def test_a_worker_whose_task_is_terminated_leaves_the_job_to_the_other(
    redis_url: str,
) -> None:
    async with (
        relay_on(redis_url) as relay,
        lifetime(redis_url) as one,
        taken_over(relay, one) as (job, task),
    ):
        task.cancel()
        await asyncio.wait({task})

        assert (await relay.records.get(job.record.id)).status == "running"


async def test_a_worker_that_cannot_start_a_job_leaves_it_to_the_other(redis_url: str) -> None:
    async with relay_on(redis_url) as relay, lifetime(redis_url) as one:
        await begin(relay)
        copy = await saved(relay)
        claim = await relay.claims.claim(QUEUE, "w1")
        assert claim is not None
        await restore(relay, copy)
        job = await taken_by_another(relay)
        one.worker.accept(claim)  # it has no session, in which the job could run
        while tasks := [task for task in asyncio.all_tasks() if "_return" in str(task.get_coro())]:
            await asyncio.wait(tasks)

        await keeps_its_job(relay, job)
