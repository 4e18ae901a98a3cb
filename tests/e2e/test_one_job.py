"""One job through real Celery workers on a real server: every way it can end."""

import asyncio
import signal
from contextlib import aclosing
from pathlib import Path

import pytest
from support.processes import WorkerProcess, until_logged, worker
from support.redis_server import RedisServer
from support.relay import Relay, relay_on

from contract.chat import ChatRequest, Message
from contract.embeddings import EmbedRequest, unpack
from contract.events import Frame
from contract.models import PullRequest, ShowRequest
from contract.result import fold

SLOW = "scripted-story:chunks=60,rate=40"


def ask(model: str, **fields: object) -> ChatRequest:
    return ChatRequest(model=model, messages=(Message(role="user", content="tell"),), **fields)


async def enqueue(relay: Relay, request: object, kind: str = "chat") -> str:
    record, _ = await relay.queue.enqueue(request, queue=f"scripted.{kind}")
    return record.id


async def heard(relay: Relay, job: str) -> list[Frame]:
    async with asyncio.timeout(40):
        return await relay.frames(job)


async def until_delta(relay: Relay, job: str, count: int = 5) -> None:
    """Follow until some fragments of the answer are there."""
    seen = 0
    async with asyncio.timeout(20), aclosing(relay.log.follow(job)) as pages:
        async for frames in pages:
            seen += sum(frame.type == "delta" for frame in frames)
            if seen >= count:
                return


def types(frames: list[Frame]) -> list[str]:
    return [frame.type for frame in frames]


def text(frames: list[Frame]) -> str:
    return fold(frame.event for frame in frames).content


async def test_a_chat_streams_to_its_end(redis_url: str, tmp_path: Path) -> None:
    # ray asynchronous-inference.md: ... and do not stream.
    with worker(redis_url, tmp_path) as one:
        async with relay_on(redis_url) as relay:
            await one.ready(relay)
            job = await enqueue(relay, ask("scripted-story:chunks=20"))
            frames = await heard(relay, job)

            assert types(frames)[:2] == ["queued", "started"]
            assert frames[-1].type == "done"
            assert 0 < frames[-1].event.timings.total_ms < 60_000
            assert text(frames)


async def test_embeddings_and_pulls_go_the_same_way(redis_url: str, tmp_path: Path) -> None:
    with worker(redis_url, tmp_path) as one:
        async with relay_on(redis_url) as relay:
            await one.ready(relay)
            texts = tuple(f"text {i}" for i in range(300))
            embed = await enqueue(
                relay, EmbedRequest(model="scripted-embed", input=texts, dimensions=8), "embed"
            )
            pull = await enqueue(relay, PullRequest(model="scripted-story"), "pull")
            show = await enqueue(relay, ShowRequest(model="scripted-story"), "show")
            result = fold(frame.event for frame in await heard(relay, embed))
            pulled = fold(frame.event for frame in await heard(relay, pull))
            shown = fold(frame.event for frame in await heard(relay, show))

            assert (result.embeddings.count, result.embeddings.dimension) == (300, 8)
            assert len(unpack(result.embeddings.data, 8)) == 300
            assert pulled.progress.overall_completed_bytes == pulled.progress.overall_total_bytes
            assert shown.details


async def test_an_answer_continues_where_a_killed_worker_stopped(
    redis_url: str, tmp_path: Path
) -> None:
    # llm-d-async #404, PR #412: a destructive pop; a hard kill lost ten of 64 jobs.
    lease = {"FLEET_LEASE_S": "1", "FLEET_RENEW_S": "0.3", "FLEET_REAP_S": "0.3"}
    with worker(redis_url, tmp_path, **lease) as first:
        async with relay_on(redis_url) as relay:
            await first.ready(relay)
            whole = text(await heard(relay, await enqueue(relay, ask("scripted-story:chunks=60"))))
            job = await enqueue(relay, ask(SLOW))
            await until_delta(relay, job)
            with worker(redis_url, tmp_path, **lease) as second:
                first.send(signal.SIGKILL)
                frames = await heard(relay, job)

                assert "resumed" in types(frames)
                assert "reset" not in types(frames)
                assert sum(frame.is_last for frame in frames) == 1
                assert whole == text(frames)
                assert second.name == (await relay.records.get(job)).worker


async def test_a_stopped_worker_that_wakes_up_cannot_add_a_word(
    redis_url: str, tmp_path: Path
) -> None:
    # llm-d-async PR #412: the fencing token.
    lease = {"FLEET_LEASE_S": "1", "FLEET_RENEW_S": "0.3", "FLEET_REAP_S": "0.3"}
    with worker(redis_url, tmp_path, **lease) as zombie:
        async with relay_on(redis_url) as relay:
            await zombie.ready(relay)
            job = await enqueue(relay, ask(SLOW))
            await until_delta(relay, job)
            zombie.send(signal.SIGSTOP)
            with worker(redis_url, tmp_path, **lease):
                frames = await heard(relay, job)
                zombie.send(signal.SIGCONT)
                await until_logged(zombie, "was taken away")

                assert frames == [f async for page in relay.log.read(job) for f in page]
                assert sorted(frames, key=lambda frame: frame.id) == frames
                assert {1, 2} == {frame.id.attempt for frame in frames}


async def test_a_cancel_stops_the_stream_at_once(redis_url: str, tmp_path: Path) -> None:
    with worker(redis_url, tmp_path) as one:
        async with relay_on(redis_url) as relay:
            await one.ready(relay)
            job = await enqueue(relay, ask("scripted-story:chunks=10000,rate=50"))
            await until_delta(relay, job)
            record = await relay.queue.cancel(job, by="caller")
            again = await relay.queue.cancel(job, by="caller")
            await until_logged(one, f"job {job} was taken away")
            frames = await heard(relay, job)

            assert "cancelled" == record.status == frames[-1].type
            assert record == again
            assert text(frames)


async def test_a_deadline_ends_a_running_job(redis_url: str, tmp_path: Path) -> None:
    # arq, pocketpaw #1575: a time limit that cuts an answer in half must be said aloud.
    with worker(redis_url, tmp_path) as one:
        async with relay_on(redis_url) as relay:
            await one.ready(relay)
            job = await enqueue(relay, ask("scripted-story:chunks=10000,rate=50", deadline_s=1))
            frames = await heard(relay, job)

            assert frames[-1].event.code == "deadline_exceeded"
            assert "delta" in types(frames)


async def test_a_stopping_worker_hands_its_job_to_the_next(redis_url: str, tmp_path: Path) -> None:
    with worker(redis_url, tmp_path) as first, worker(redis_url, tmp_path) as second:
        async with relay_on(redis_url) as relay:
            await asyncio.gather(first.ready(relay), second.ready(relay))
            job = await enqueue(relay, ask(SLOW, max_attempts=1))
            await until_delta(relay, job)
            holder = (await relay.records.get(job)).worker
            leaver = first if first.name == holder else second
            leaver.send(signal.SIGTERM)
            frames = await heard(relay, job)

            assert frames[-1].type == "done"
            assert {1, 2} == {frame.id.attempt for frame in frames}
            assert await asyncio.to_thread(leaver.wait) == 0


async def test_a_worker_with_time_to_drain_finishes_its_stream(
    redis_url: str, tmp_path: Path
) -> None:
    # KEDA #6719, #647: scaled down while it is busy.
    with worker(redis_url, tmp_path, FLEET_DRAIN_S="20") as one:
        async with relay_on(redis_url) as relay:
            await one.ready(relay)
            job = await enqueue(relay, ask(SLOW))
            await until_delta(relay, job)
            one.send(signal.SIGTERM)
            frames = await heard(relay, job)

            assert {1} == {frame.id.attempt for frame in frames}
            assert frames[-1].type == "done"
            assert await asyncio.to_thread(one.wait) == 0


async def test_a_restart_of_redis_in_mid_stream_loses_no_word(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    with worker(own_redis.url, tmp_path) as one:
        async with relay_on(own_redis.url) as relay:
            await one.ready(relay)
            whole = text(await heard(relay, await enqueue(relay, ask("scripted-story:chunks=60"))))
            job = await enqueue(relay, ask(SLOW))
            await until_delta(relay, job)
            await asyncio.to_thread(own_redis.restart)
            frames = await heard(relay, job)
            later = await heard(relay, await enqueue(relay, ask("scripted-story:chunks=3")))

            assert whole == text(frames)
            assert {1} == {frame.id.attempt for frame in frames}
            assert later[-1].type == "done"


async def test_slots_bound_what_runs_at_once(redis_url: str, tmp_path: Path) -> None:
    # vllm #49538: a backend's gauges lag by seconds, so we count what is in flight ourselves.
    dsn = {"LLM_SCRIPTED": "scripted://?slots=2"}
    with worker(redis_url, tmp_path, **dsn) as one:
        async with relay_on(redis_url) as relay:
            await one.ready(relay)
            jobs = [await enqueue(relay, ask("scripted-story:chunks=8,rate=20")) for _ in range(6)]
            most = 0
            followers = [asyncio.create_task(heard(relay, job)) for job in jobs]
            while not all(follower.done() for follower in followers):
                views = await relay.queue.positions.views([])
                most = max(most, *(view.in_flight for view in views))
                await asyncio.sleep(0.01)

            assert most == 2
            assert [(await follower)[-1].type for follower in followers] == ["done"] * 6


async def test_two_workers_share_the_jobs_of_one_backend(redis_url: str, tmp_path: Path) -> None:
    dsn = {"LLM_SCRIPTED": "scripted://?slots=1"}
    with worker(redis_url, tmp_path, **dsn) as one, worker(redis_url, tmp_path, **dsn) as two:
        async with relay_on(redis_url) as relay:
            await asyncio.gather(one.ready(relay), two.ready(relay))
            jobs = [await enqueue(relay, ask("scripted-story:chunks=10,rate=20")) for _ in range(6)]
            await asyncio.gather(*(heard(relay, job) for job in jobs))
            workers = [(await relay.records.get(job)).worker for job in jobs]

            assert {one.name: 3, two.name: 3} == {name: workers.count(name) for name in workers}


@pytest.mark.slow
async def test_a_worker_holds_a_thousand_streams(redis_url: str, tmp_path: Path) -> None:
    with worker(redis_url, tmp_path) as one:
        async with relay_on(redis_url) as relay:
            await one.ready(relay)
            request = ask("scripted-story:chunks=20,rate=5")
            jobs = [await enqueue(relay, request) for _ in range(1000)]
            ends = await asyncio.gather(*(heard(relay, job) for job in jobs))

            assert {"done"} == {frames[-1].type for frames in ends}
            assert len({text(frames) for frames in ends}) == 1


async def test_a_worker_with_an_unknown_backend_exits_with_the_reason(
    redis_url: str, tmp_path: Path
) -> None:
    lost = WorkerProcess(redis_url, tmp_path, backend="nowhere")

    assert await asyncio.to_thread(lost.wait) == 2
    assert "no backend has that name" in lost.text()
