"""Jobs of an alias on real workers: they move on once, whoever is killed meanwhile.

Subjects: relay/aliases/moves.py, workers/run.py, workers/worker.py.
"""

import asyncio
import random
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.processes import WorkerProcess, worker
from support.queues import nothing_waits
from support.redis_server import RedisServer
from support.relay import Relay, chat, relay_on

from contract.events import Cancelled, Frame, Queued, Started
from contract.requests import AliasTarget, Route
from contract.result import fold

SHORT = {"FLEET_LEASE_S": "1", "FLEET_RENEW_S": "0.3", "FLEET_REAP_S": "0.2"}
STORY = "scripted-story:chunks=5"
Workers = dict[str, WorkerProcess]


def started(redis_url: str, folder: Path, backend: str) -> Any:
    dsn = {f"LLM_{backend.upper()}": "scripted://?slots=2"}
    return worker(redis_url, folder, backend, FLEET_REPORT_S="0.5", **dsn, **SHORT)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("fleet")
    redis = RedisServer(folder)
    with ExitStack() as stack:
        stack.callback(redis.stop)
        for backend in ("one", "two"):
            stack.enter_context(started(redis.url, folder, backend))
        yield redis.url, folder


def route(first: str, second: str = STORY, wait_s: float = 60.0) -> Route:
    targets = (
        AliasTarget(model=first, backend="one", wait_s=wait_s),
        AliasTarget(model=second, backend="two", wait_s=60),
    )
    return Route(alias="fast", targets=targets)


async def enqueue(relay: Relay, its: Route, **fields: Any) -> str:
    record, _ = await relay.queue.enqueue(chat(route=its, **fields), queue="one.chat")
    return record.id


async def both(relay: Relay) -> None:
    async with asyncio.timeout(60):
        while {"one", "two"} != {
            w.backends[0].name for w in await relay.roster.workers() if w.backends[0].healthy
        }:
            await asyncio.sleep(0.05)


async def run(relay: Relay, its: Route, **fields: Any) -> list[Frame]:
    await both(relay)
    async with asyncio.timeout(30):
        return await relay.frames(await enqueue(relay, its, **fields))


def attempts(frames: list[Frame]) -> list[tuple[str, str | None]]:
    events = [frame.event for frame in frames]
    return [(each.backend, each.model) for each in events if isinstance(each, Started)]


@pytest.mark.parametrize("fault", ["missing", "context"])
async def test_a_backend_that_cannot_take_a_job_passes_it_on_at_once(
    fleet: tuple[str, Path], fault: str
) -> None:
    async with relay_on(fleet[0]) as relay:
        frames = await run(relay, route(f"scripted-story:fail={fault}"), max_attempts=1)

        assert attempts(frames) == [("one", f"scripted-story:fail={fault}"), ("two", STORY)]
        assert [frame.type for frame in frames if frame.is_last] == ["done"]
        assert len(fold(frame.event for frame in frames).content.split()) == 5
        moved = [frame.event for frame in frames if isinstance(frame.event, Queued)][1]
        assert moved.reason.startswith("fallback: ")
        await nothing_waits(relay)


async def test_a_busy_backend_is_asked_until_the_wait_is_over(fleet: tuple[str, Path]) -> None:
    async with relay_on(fleet[0]) as relay:
        frames = await run(relay, route("scripted-story:fail=busy", wait_s=0.5))
        tried = attempts(frames)
        moved = next(
            f for f in frames if isinstance(f.event, Queued) and f.event.queue[:3] == "two"
        )

        assert tried[-1] == ("two", STORY)
        assert moved.at - frames[0].at >= 0.5
        assert [frame.type for frame in frames if frame.is_last] == ["done"]


@pytest.mark.parametrize("fault", ["crash", "cut:2"])
async def test_other_faults_are_retried_where_they_are(fleet: tuple[str, Path], fault: str) -> None:
    async with relay_on(fleet[0]) as relay:
        frames = await run(relay, route(f"scripted-story:chunks=4,fail={fault},times=1"))

        assert {"one"} == {backend for backend, _ in attempts(frames)}
        assert [frame.type for frame in frames if frame.is_last] == ["done"]


async def test_a_job_that_waits_for_a_slot_moves_without_a_follower(
    fleet: tuple[str, Path],
) -> None:
    async with relay_on(fleet[0]) as relay:
        await both(relay)
        slow = "scripted-story:chunks=500,rate=20"
        blocking = [await enqueue(relay, route(slow)) for _ in range(2)]
        waiting = [await enqueue(relay, route(STORY, wait_s=0.3)) for _ in range(3)]
        cancelled = await enqueue(relay, route(STORY, wait_s=0.3))
        await relay.queue.cancel(cancelled, by="test")
        async with asyncio.timeout(20):
            ends = [(await relay.frames(job))[-1] for job in waiting]
        for job in blocking:
            await relay.queue.cancel(job, by="test")
        records = [await relay.records.get(job) for job in waiting]

        assert [end.type for end in ends] == ["done"] * 3
        assert {("two", 1)} == {(record.backend, record.target) for record in records}
        assert isinstance((await relay.frames(cancelled))[-1].event, Cancelled)
        await nothing_waits(relay, within_s=10)


async def test_workers_that_are_killed_while_jobs_move_lose_none(tmp_path: Path) -> None:
    redis = RedisServer(tmp_path)
    chance = random.Random(7)
    with ExitStack() as stack:
        stack.callback(redis.stop)
        workers = {
            name: [stack.enter_context(started(redis.url, tmp_path, name)) for _ in range(2)]
            for name in ("one", "two")
        }
        async with relay_on(redis.url) as relay:
            await both(relay)
            first = ("scripted-story:fail=context", "scripted-story:chunks=9,rate=90")
            ids = [
                await enqueue(relay, route(first[number % 2], wait_s=1.0), max_attempts=9)
                for number in range(40)
            ]
            for name in ("one", "two", "one", "two"):
                await asyncio.sleep(chance.uniform(0.05, 0.4))
                victim = workers[name].pop(0)
                victim.send(signal.SIGKILL)
                workers[name].append(stack.enter_context(started(redis.url, tmp_path, name)))
            async with asyncio.timeout(90):
                logs = [await relay.frames(job) for job in ids]

            for frames in logs:
                assert [frame.type for frame in frames if frame.is_last] == ["done"]
                assert frames[-1].is_last
                assert [f.id for f in frames] == sorted({f.id for f in frames})
                backends = [backend for backend, _ in attempts(frames)]
                assert backends == sorted(backends)  # never back from two to one
                words = fold(frame.event for frame in frames).content.split()
                assert len(words) in {5, 9}
            await nothing_waits(relay, within_s=15)
