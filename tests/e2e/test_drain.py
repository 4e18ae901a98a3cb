"""Workers that stop: how soon another one continues, and that no output is lost."""

import asyncio
import signal
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from signal import Signals

import pytest
from support.processes import WorkerProcess, until_logged, worker
from support.relay import Relay, relay_on

from contract.chat import ChatRequest, Message
from contract.events import Frame
from contract.result import fold

STORY = "scripted-story:chunks=100,rate=40"
SOON_S = 5.0
TOGETHER_S = 12.0
"""Of a busy machine, where a hundred first chunks take 8 s; an expired lease needs 15."""


def ask(model: str, **fields: object) -> ChatRequest:
    return ChatRequest(model=model, messages=(Message(role="user", content="tell"),), **fields)


async def enqueue(relay: Relay, model: str = STORY, **fields: object) -> str:
    record, _ = await relay.queue.enqueue(ask(model, **fields), queue="scripted.chat")
    return record.id


class Hearing:
    """A subscriber that knows when each attempt said its first fragment."""

    def __init__(self, relay: Relay, job: str) -> None:
        self.frames: list[Frame] = []
        self.first_at: dict[int, float] = {}
        self._task = asyncio.create_task(self._follow(relay, job))

    async def _follow(self, relay: Relay, job: str) -> None:
        async with aclosing(relay.log.follow(job)) as pages:
            async for frames in pages:
                self.frames += frames
                for frame in frames:
                    if frame.type == "delta" and frame.id is not None:
                        now = asyncio.get_running_loop().time()
                        self.first_at.setdefault(frame.id.attempt, now)

    async def heard(self, attempt: int) -> float:
        async with asyncio.timeout(20):
            while attempt not in self.first_at:
                await asyncio.sleep(0.005)
        return self.first_at[attempt]

    async def end(self) -> list[Frame]:
        async with asyncio.timeout(30):
            await self._task
        return self.frames


@asynccontextmanager
async def two(
    redis_url: str, folder: Path, **env: str
) -> AsyncGenerator[tuple[Relay, list[WorkerProcess]]]:
    with worker(redis_url, folder, **env) as one, worker(redis_url, folder, **env) as other:
        async with relay_on(redis_url) as relay:
            await asyncio.gather(one.ready(relay), other.ready(relay))
            yield relay, [one, other]


async def holder(relay: Relay, job: str, workers: list[WorkerProcess]) -> WorkerProcess:
    record = await relay.records.get(job)
    return next(each for each in workers if each.name == record.worker)


async def whole(relay: Relay) -> str:
    job = await enqueue(relay, "scripted-story:chunks=100")
    return fold(frame.event for frame in await relay.frames(job)).content


async def test_jobs_of_a_stopping_worker_continue_elsewhere_in_two_seconds(
    redis_url: str, tmp_path: Path
) -> None:
    async with two(redis_url, tmp_path, FLEET_DRAIN_S="0") as (relay, workers):
        text = await whole(relay)
        job = await enqueue(relay, max_attempts=1)
        hearing = Hearing(relay, job)
        await hearing.heard(1)
        leaver = await holder(relay, job, workers)
        told_at = asyncio.get_running_loop().time()
        leaver.send(signal.SIGTERM)
        spoke_at = await hearing.heard(2)
        frames = await hearing.end()

        assert spoke_at - told_at < SOON_S
        assert fold(frame.event for frame in frames).content == text
        assert await asyncio.to_thread(leaver.wait) == 0


async def test_a_second_signal_ends_the_patience_of_the_first(
    redis_url: str, tmp_path: Path
) -> None:
    async with two(redis_url, tmp_path, FLEET_DRAIN_S="60") as (relay, workers):
        job = await enqueue(relay, "scripted-story:chunks=200,rate=40", max_attempts=1)
        hearing = Hearing(relay, job)
        await hearing.heard(1)
        leaver = await holder(relay, job, workers)
        leaver.send(signal.SIGTERM)
        await until_logged(leaver, "draining: 1 jobs have 60 s")
        await asyncio.sleep(1.1)  # signals within a second are one
        told_at = asyncio.get_running_loop().time()
        leaver.send(signal.SIGTERM)
        spoke_at = await hearing.heard(2)
        frames = await hearing.end()

        assert spoke_at - told_at < SOON_S
        assert frames[-1].type == "done"
        assert await asyncio.to_thread(leaver.wait) == 0


@pytest.mark.parametrize(
    "signals",
    [
        [signal.SIGINT],
        [signal.SIGINT, signal.SIGINT],
        [signal.SIGQUIT],
        [signal.SIGTERM, signal.SIGQUIT],
    ],
    ids=lambda signals: "-".join(each.name for each in signals),
)
async def test_no_way_to_stop_a_worker_loses_a_word_or_an_attempt(
    redis_url: str, tmp_path: Path, signals: list[Signals]
) -> None:
    async with two(redis_url, tmp_path, FLEET_DRAIN_S="1", FLEET_LEASE_S="60") as (relay, workers):
        text = await whole(relay)
        jobs = [await enqueue(relay, max_attempts=1) for _ in range(6)]
        hearings = [Hearing(relay, job) for job in jobs]
        await asyncio.gather(*(hearing.heard(1) for hearing in hearings))
        leaver = await holder(relay, jobs[0], workers)
        for number, each in enumerate(signals):
            if number:
                await until_logged(leaver, "draining")
            leaver.send(each)
        ends = [await hearing.end() for hearing in hearings]

        assert {fold(f.event for f in frames).content for frames in ends} == {text}
        assert {frames[-1].type for frames in ends} == {"done"}
        await asyncio.to_thread(leaver.wait)


async def test_a_hundred_streams_are_handed_over_together(redis_url: str, tmp_path: Path) -> None:
    with worker(redis_url, tmp_path, FLEET_DRAIN_S="0") as leaver:
        async with relay_on(redis_url) as relay:
            await leaver.ready(relay)
            story = "scripted-story:chunks=5000,rate=20"
            jobs = [await enqueue(relay, story) for _ in range(100)]
            hearings = [Hearing(relay, job) for job in jobs]
            await asyncio.gather(*(hearing.heard(1) for hearing in hearings))
            with worker(redis_url, tmp_path) as other:
                await other.ready(relay)
                told_at = asyncio.get_running_loop().time()
                leaver.send(signal.SIGTERM)
                spoke_at = [await hearing.heard(2) for hearing in hearings]
                for job in jobs:
                    await relay.queue.cancel(job, by="caller")
                ends = [await hearing.end() for hearing in hearings]

                assert max(spoke_at) - told_at < TOGETHER_S
                assert {frames[-1].type for frames in ends} == {"cancelled"}


async def test_ctrl_c_ends_a_worker_as_sigterm_does_also_if_it_comes_doubled(
    redis_url: str, tmp_path: Path
) -> None:
    # `timeout -s INT` signals the process, and then its group.
    with worker(redis_url, tmp_path, FLEET_DRAIN_S="20") as one:
        async with relay_on(redis_url) as relay:
            await one.ready(relay)
            job = await enqueue(relay, "scripted-story:chunks=60,rate=30")
            story = Hearing(relay, job)
            await story.heard(1)
            for _ in range(2):
                one.send(signal.SIGINT)
                await asyncio.sleep(0.01)
            frames = await story.end()
            code = await asyncio.to_thread(one.wait)

    assert (frames[-1].type, code) == ("done", 0)
    assert {frame.id.attempt for frame in frames if frame.id} == {1}
    assert "Traceback" not in one.text()
