"""What a real worker takes next from its queue, seen in what it loads and in what order."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from support.processes import worker
from support.relay import Relay, relay_on

from contract.chat import ChatRequest, Message
from contract.events import Frame
from contract.jobs import JobRecord
from contract.requests import Priority

QUEUE = "scripted.chat"
A, B = ("scripted-story:load=0.3,chunks=3,size=1", "scripted-story:load=0.3,chunks=3,size=2")
LATE_REAPER = {"FLEET_REAP_S": "60"}
"""What moves then was not moved by the reaper."""


def ask(model: str, priority: Priority = "standard") -> ChatRequest:
    message = Message(role="user", content="tell")
    return ChatRequest(model=model, messages=(message,), max_tokens=5, priority=priority)


async def enqueue(relay: Relay, *models: str, priority: Priority = "standard") -> list[str]:
    return [
        (await relay.queue.enqueue(ask(model, priority), queue=QUEUE))[0].id for model in models
    ]


@asynccontextmanager
async def working(
    redis_url: str, folder: Path, options: str, *first: str, **settings: str
) -> AsyncGenerator[tuple[Relay, list[str]]]:
    """A worker whose first jobs wait for it already."""
    async with relay_on(redis_url) as relay:
        jobs = await enqueue(relay, *first)
        env = {"LLM_SCRIPTED": f"scripted://?{options}", **LATE_REAPER, **settings}
        with worker(redis_url, folder, **env) as one:
            await one.ready(relay)
            yield relay, jobs


async def told(relay: Relay, jobs: Sequence[str]) -> list[list[Frame]]:
    async with asyncio.timeout(30):
        return [await relay.frames(job) for job in jobs]


async def records(relay: Relay, jobs: Sequence[str]) -> list[JobRecord]:
    await told(relay, jobs)
    return [await relay.records.get(job) for job in jobs]


def loads(logs: list[list[Frame]]) -> int:
    return sum(f.type == "phase" and f.event.phase == "loading" for frames in logs for f in frames)


async def until_started(relay: Relay, job: str) -> None:
    async with asyncio.timeout(20), aclosing(relay.log.follow(job)) as pages:
        async for frames in pages:
            if any(frame.type == "started" for frame in frames):
                return


async def test_parallel_first_requests_load_a_model_once(redis_url: str, tmp_path: Path) -> None:
    # lmstudio-bug-tracker #1751: parallel first requests load as many copies.
    async with working(redis_url, tmp_path, "room=1&slots=8", *[A] * 8) as (relay, jobs):
        logs = await told(relay, jobs)

        assert loads(logs) == 1
        assert all(frames[-1].type == "done" for frames in logs)


async def test_two_models_in_turn_are_not_loaded_in_turn(redis_url: str, tmp_path: Path) -> None:
    # litellm #18127: requests for the same model should be pulled forward, against swaps.
    async with working(redis_url, tmp_path, "room=1&slots=1", *[A, B] * 8) as (relay, jobs):
        assert loads(await told(relay, jobs)) == 2


async def test_without_patience_they_run_in_their_order(redis_url: str, tmp_path: Path) -> None:
    strict = {"FLEET_AFFINITY_PATIENCE_S": "0"}
    async with working(redis_url, tmp_path, "room=1&slots=1", *[A, B] * 3, **strict) as (
        relay, jobs,
    ):  # fmt: skip
        assert loads(await told(relay, jobs)) == 6


async def test_a_cold_job_is_passed_over_no_longer_than_the_patience(
    redis_url: str, tmp_path: Path
) -> None:
    slow = "scripted-story:load=0.3,chunks=5,rate=20"
    async with working(
        redis_url, tmp_path, "room=1&slots=1", slow, B, *[slow] * 16,
        FLEET_AFFINITY_PATIENCE_S="1.5",
    ) as (relay, jobs):  # fmt: skip
        first, cold, *others = await records(relay, jobs)
        assert first.started_at is not None
        assert cold.started_at is not None
        overtook = sum((job.started_at or 0) < cold.started_at for job in others)

        assert 2 <= overtook < 16
        assert cold.started_at - first.started_at < 0.3 + 1.5 + 2 * 0.25 + 1


async def test_a_warm_job_runs_while_another_model_loads(redis_url: str, tmp_path: Path) -> None:
    slow = "scripted-story:load=3,chunks=3"
    async with working(redis_url, tmp_path, "room=2&slots=4", A) as (relay, jobs):
        await told(relay, jobs)
        cold = await enqueue(relay, slow, B)
        await until_started(relay, cold[0])
        (warm,) = await records(relay, await enqueue(relay, A))
        loading, waiting = [await relay.records.get(job) for job in cold]

        assert (warm.status, loading.status, waiting.status) == ("done", "running", "queued")
        assert [loads([frames]) for frames in await told(relay, cold)] == [1, 1]


async def test_a_job_that_one_worker_cannot_take_for_its_load_goes_to_another(
    redis_url: str, tmp_path: Path
) -> None:
    slow = "scripted-story:load=60,chunks=3"  # longer than the test takes
    env = {"LLM_SCRIPTED": "scripted://?room=1&slots=4", **LATE_REAPER}
    async with working(redis_url, tmp_path, "room=1&slots=4", slow) as (relay, jobs):
        await until_started(relay, jobs[0])
        with worker(redis_url, tmp_path, **env) as other:
            await other.ready(relay)
            for _ in range(4):  # the ticket of each may go to either of them
                (record,) = await records(relay, await enqueue(relay, B))

                assert record.worker == other.name
            assert (await relay.records.get(jobs[0])).status == "running"


async def test_a_waiting_queue_reports_which_model_is_loaded(
    redis_url: str, tmp_path: Path
) -> None:
    slow = "scripted-story:load=2,chunks=3"
    async with working(redis_url, tmp_path, "room=1&slots=2", slow, B) as (relay, jobs):
        seen: set[str | None] = set()
        async with asyncio.timeout(10):
            while (await relay.records.get(jobs[1])).status == "queued":
                queues = [q for w in await relay.roster.workers() for q in w.queues]
                seen |= {q.loading for q in queues if q.name == QUEUE}
                assert all(q.loading is None for q in queues if q.name == "scripted.pull")
                await asyncio.sleep(0.02)

        assert seen >= {slow}


async def test_batch_jobs_leave_a_slot_for_an_interactive_one(
    redis_url: str, tmp_path: Path
) -> None:
    long, short = "scripted-story:chunks=5,rate=1", "scripted-story:chunks=3"
    async with working(redis_url, tmp_path, "slots=4") as (relay, _):
        batch = await enqueue(relay, *[long] * 8, priority="batch")
        for job in batch[:3]:
            await until_started(relay, job)
        (urgent,) = await enqueue(relay, short, priority="interactive")
        (record,) = await records(relay, [urgent])
        statuses = [(await relay.records.get(job)).status for job in batch]
        for job in batch:
            await relay.queue.cancel(job, by="caller")

        assert record.started_at is not None
        assert record.started_at - record.created_at < 1
        assert statuses == ["running"] * 3 + ["queued"] * 5


async def test_a_backend_that_puts_out_models_which_speak_is_given_one_at_a_time(
    redis_url: str, tmp_path: Path
) -> None:
    # LM Studio #671, #1796, llama.cpp #21678, llama-swap #588: backends evict busy models.
    models = [f"scripted-story:load=0.3,chunks=30,rate=20,size={size}" for size in (1, 2, 3)]
    async with working(redis_url, tmp_path, "room=1&evicts=1&slots=4") as (relay, _):
        requests = [ask(model).model_copy(update={"max_tokens": None}) for model in models * 3]
        jobs = [(await relay.queue.enqueue(each, queue=QUEUE))[0].id for each in requests]
        logs = await told(relay, jobs)
        attempts = [frames[-1].id.attempt for frames in logs if frames[-1].id]

        assert [frames[-1].type for frames in logs] == ["done"] * 9
        assert sum(attempts) <= 9 + 3  # until it was noticed
