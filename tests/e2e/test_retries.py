"""Jobs that their backend fails: tried again, given up, cancelled or too late between two tries."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
from support.processes import WorkerProcess, worker
from support.redis_server import RedisServer
from support.relay import Relay, relay_on

from contract.chat import ChatRequest, Message
from contract.events import Failed, Frame, Queued
from contract.result import fold

RARELY = {"FLEET_REAP_S": "60"}
"""Reapers come too late to help: the worker that delays a job must wake it."""


def ask(model: str, **fields: object) -> ChatRequest:
    return ChatRequest(model=model, messages=(Message(role="user", content="tell"),), **fields)


async def enqueue(relay: Relay, model: str, **fields: object) -> str:
    record, _ = await relay.queue.enqueue(ask(model, **fields), queue="scripted.chat")
    return record.id


async def run(relay: Relay, model: str, **fields: object) -> list[Frame]:
    async with asyncio.timeout(30):
        return await relay.frames(await enqueue(relay, model, **fields))


async def until_put_off(relay: Relay, job: str) -> Frame:
    async with asyncio.timeout(10), aclosing(relay.log.follow(job)) as pages:
        async for frames in pages:
            for frame in frames:
                if frame.type == "queued" and frame.id.attempt > 1:
                    return frame
    raise AssertionError


def types(frames: list[Frame]) -> list[str]:
    return [frame.type for frame in frames if frame.type != "delta"]


Fleet = tuple[str, WorkerProcess]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A server and a worker for all tests that need no other settings."""
    folder = tmp_path_factory.mktemp("fleet")
    redis = RedisServer(folder)
    with worker(redis.url, folder, **RARELY) as one:
        yield redis.url, one
    redis.stop()


@asynccontextmanager
async def shared(fleet: Fleet) -> AsyncGenerator[Relay]:
    async with relay_on(fleet[0]) as relay:
        await fleet[1].ready(relay)
        yield relay


@asynccontextmanager
async def own(redis_url: str, folder: Path, **env: str) -> AsyncGenerator[Relay]:
    with worker(redis_url, folder, **{**RARELY, **env}) as one:
        async with relay_on(redis_url) as relay:
            await one.ready(relay)
            yield relay


async def test_a_backend_that_crashes_twice_is_asked_a_third_time(fleet: Fleet) -> None:
    async with shared(fleet) as relay:
        frames = await run(relay, "scripted-story:chunks=5,fail=crash,times=2")
        why = [f.event.reason for f in frames if isinstance(f.event, Queued) and f.id.attempt > 1]

        assert types(frames) == ["queued", "started"] * 3 + ["done"]
        assert all("retry in " in each and "crashed (HTTP 500)" in each for each in why)


async def test_what_cannot_be_mended_ends_as_a_dead_letter_with_the_last_error(
    fleet: Fleet,
) -> None:
    async with shared(fleet) as relay:
        job = await enqueue(relay, "scripted-story:fail=crash", max_attempts=2)
        async with asyncio.timeout(20):
            frames = await relay.frames(job)
        record = await relay.records.get(job)

        assert types(frames) == ["queued", "started", "queued", "started", "failed"]
        assert isinstance(frames[-1].event, Failed)
        assert frames[-1].event.code == "server_fault"
        assert record.dead_at is not None


@pytest.mark.parametrize("fault", ["missing", "context", "auth", "html"])
async def test_what_will_be_the_same_next_time_is_not_tried_again(fleet: Fleet, fault: str) -> None:
    async with shared(fleet) as relay:
        job = await enqueue(relay, f"scripted-story:fail={fault}")
        async with asyncio.timeout(20):
            frames = await relay.frames(job)

        assert types(frames) == ["queued", "started", "failed"]
        assert (await relay.records.get(job)).dead_at is None


async def test_a_refusal_is_an_answer(fleet: Fleet) -> None:
    async with shared(fleet) as relay:
        frames = await run(relay, "scripted-story:chunks=9,fail=refuse:3")

        assert types(frames) == ["queued", "started", "done"]


async def test_a_busy_backend_is_given_the_time_that_it_asks_for_and_costs_no_attempt(
    fleet: Fleet,
) -> None:
    async with shared(fleet) as relay:
        frames = await run(relay, "scripted-story:fail=busy,times=1", max_attempts=1)
        first, second = (frame.at for frame in frames if frame.type == "started")

        assert 2.0 <= second - first < 4.0
        assert frames[-1].type == "done"


async def test_a_backend_that_asks_for_more_time_than_a_client_has_is_not_waited_for(
    fleet: Fleet,
) -> None:
    async with shared(fleet) as relay:
        frames = await run(relay, "scripted-story:fail=busy", busy_wait_s=1)

        assert types(frames) == ["queued", "started", "failed"]
        assert (frames[-1].event.code, frames[-1].event.retry_after_s) == ("backend_busy", 2.0)


async def test_patience_with_a_backend_that_is_always_busy_ends(
    redis_url: str, tmp_path: Path
) -> None:
    async with own(redis_url, tmp_path, FLEET_RETRY_PATIENCE="1") as relay:
        frames = await run(relay, "scripted-story:fail=busy", max_attempts=1)

        assert types(frames) == ["queued", "started", "queued", "started", "failed"]
        assert frames[-1].event.code == "backend_busy"


async def test_an_answer_that_broke_off_is_whole_in_the_end_and_nothing_is_doubled(
    fleet: Fleet,
) -> None:
    # strands #2771: the restart after a read error says everything twice.
    async with shared(fleet) as relay:
        whole = await run(relay, "scripted-story:chunks=30")
        frames = await run(relay, "scripted-story:chunks=30,fail=error:12,times=1")
        answers = [fold(frame.event for frame in each) for each in (whole, frames)]

        assert frames[-1].id.attempt == 2
        assert answers[0].content == answers[1].content


async def test_a_cancel_between_two_tries_is_final(fleet: Fleet) -> None:
    async with shared(fleet) as relay:
        job = await enqueue(relay, "scripted-story:fail=busy")
        await until_put_off(relay, job)
        record = await relay.queue.cancel(job, by="caller")
        later = await run(relay, "scripted-story:chunks=1,fail=busy,times=1")
        frames = await relay.frames(job)

        assert record.status == "cancelled"
        assert types(frames) == ["queued", "started", "queued", "cancelled"]
        assert later[-1].at - frames[-1].at > 2.0


async def test_a_deadline_that_passes_between_two_tries_holds(
    redis_url: str, tmp_path: Path
) -> None:
    async with own(redis_url, tmp_path, FLEET_REAP_S="0.2") as relay:
        frames = await run(relay, "scripted-story:fail=loading", deadline_s=1.0)

        assert (types(frames)[2], types(frames)[-1]) == ("queued", "failed")
        assert frames[-1].event.code == "deadline_exceeded"
        assert frames[-1].at - frames[0].at < 3.0


async def test_a_job_does_not_wait_for_a_backend_beyond_its_deadline(fleet: Fleet) -> None:
    async with shared(fleet) as relay:
        frames = await run(relay, "scripted-story:fail=busy", deadline_s=1.5)

        assert types(frames) == ["queued", "started", "failed"]
        assert frames[-1].event.code == "backend_busy"


async def test_a_job_that_waits_for_its_next_try_blocks_no_other(
    redis_url: str, tmp_path: Path
) -> None:
    async with own(redis_url, tmp_path, LLM_SCRIPTED="scripted://?slots=1") as relay:
        job = await enqueue(relay, "scripted-story:chunks=2,fail=busy,times=1")
        await until_put_off(relay, job)
        neighbour = await run(relay, "scripted-story:chunks=3")
        frames = await relay.frames(job)

        assert neighbour[-1].type == frames[-1].type == "done"
        assert neighbour[-1].at < frames[-1].at
