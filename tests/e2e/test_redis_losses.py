"""Redis is full, comes back with a shorter past, or has other ideas of the time than a worker."""

import asyncio
import signal
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack, aclosing, asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import pytest
from support.processes import WorkerProcess, until_logged, worker
from support.proxy import proxy_to
from support.redis_server import RedisServer
from support.relay import Relay, relay_on
from support.shim import eventually, problem, serving

from contract.chat import ChatRequest, Message
from contract.events import EventId, Frame
from contract.result import fold

SLOW = "scripted-story:chunks=90,rate=30"
BODY = {
    "backend": "scripted",
    "model": "scripted-story:chunks=5",
    "messages": [{"role": "user", "content": "tell"}],
}
LEASE = {"FLEET_LEASE_S": "2", "FLEET_RENEW_S": "0.5", "FLEET_REAP_S": "0.5"}


async def enqueue(relay: Relay, model: str = SLOW, **fields: object) -> str:
    message = Message(role="user", content="tell")
    request = ChatRequest(model=model, messages=(message,), **fields)
    record, _ = await relay.queue.enqueue(request, queue="scripted.chat")
    return record.id


async def heard(relay: Relay, job: str, **arguments: object) -> list[Frame]:
    async with asyncio.timeout(40):
        return await relay.frames(job, **arguments)


async def until_delta(relay: Relay, job: str, count: int) -> EventId:
    """Follow until so many fragments are there; the id of the last one."""
    seen: list[Frame] = []
    async with asyncio.timeout(20), aclosing(relay.log.follow(job)) as pages:
        async for frames in pages:
            seen += [frame for frame in frames if frame.type == "delta"]
            if len(seen) >= count:
                break
    assert seen[-1].id is not None
    return seen[-1].id


def text(frames: list[Frame]) -> str:
    return fold(frame.event for frame in frames).content


@pytest.fixture
def durable_redis(tmp_path: Path) -> AsyncGenerator[RedisServer, None]:
    server = RedisServer(tmp_path, "--appendfsync", "always")
    yield server
    server.stop()


@asynccontextmanager
async def running(redis: RedisServer, folder: Path, **env: str) -> AsyncGenerator[Relay]:
    with worker(redis.url, folder, **LEASE, **env) as one:
        async with relay_on(redis.url) as relay:
            await one.ready(relay)
            await until_logged(one, " ready.")
            yield relay


@asynccontextmanager
async def running_at(url: str, folder: Path) -> AsyncGenerator[Relay]:
    """The same at an address that this loop serves itself, so that nothing may block it."""
    async with relay_on(url) as relay:
        one = WorkerProcess(url, folder, **LEASE)
        try:
            await one.ready(relay)
            yield relay
        finally:
            await asyncio.to_thread(one.end)


@contextmanager
def two_servers(folder: Path) -> Iterator[tuple[RedisServer, RedisServer]]:
    """A primary, which the test kills, and what will be its replica."""
    with ExitStack() as stack:
        servers = []
        for name in ("primary", "replica"):
            (folder / name).mkdir()
            servers.append(RedisServer(folder / name, "--repl-diskless-sync-delay", "0"))
            stack.callback(servers[-1].stop)
        yield servers[0], servers[1]


async def whole_text(relay: Relay) -> str:
    return text(await heard(relay, await enqueue(relay, SLOW.replace("rate=30", "rate=0"))))


async def test_a_worker_whose_words_redis_forgot_hands_the_job_over_and_it_ends_whole(
    durable_redis: RedisServer, tmp_path: Path
) -> None:
    async with running(durable_redis, tmp_path) as relay:
        whole = await whole_text(relay)
        job = await enqueue(relay)
        await until_delta(relay, job, 10)
        past = durable_redis.past()
        await until_delta(relay, job, 30)
        durable_redis.rewind(past)
        frames = await heard(relay, job)

        assert whole == text(frames)
        assert frames[-1].id > (2, 0)


async def test_a_follower_with_a_cursor_that_redis_lost_gets_log_reset(
    durable_redis: RedisServer, tmp_path: Path
) -> None:
    async with running(durable_redis, tmp_path) as relay:
        whole = await whole_text(relay)
        job = await enqueue(relay)
        await until_delta(relay, job, 10)
        past = durable_redis.past()
        following = asyncio.create_task(heard(relay, job))
        cursor = await until_delta(relay, job, 30)
        durable_redis.rewind(past)
        followed, late = await following, await heard(relay, job, after=cursor)

        assert [sum(f.type == "log_reset" for f in each) for each in (followed, late)] == [1, 1]
        assert late[0].type == "log_reset"
        assert [whole, whole] == [text(followed), text(late)]


async def test_a_job_that_ended_in_the_lost_future_ends_again(
    durable_redis: RedisServer, tmp_path: Path
) -> None:
    async with running(durable_redis, tmp_path) as relay:
        job = await enqueue(relay, "scripted-story:chunks=20,rate=40")
        await until_delta(relay, job, 3)
        past = durable_redis.past()
        before = await heard(relay, job)
        durable_redis.rewind(past)
        after = await heard(relay, job)

        assert text(before) == text(after)
        assert after[-1].type == "done"
        assert (await relay.records.get(job)).status == "done"


async def test_a_job_that_was_enqueued_in_the_lost_future_is_gone_and_can_be_sent_again(
    durable_redis: RedisServer, tmp_path: Path
) -> None:
    async with running(durable_redis, tmp_path) as relay:
        past = durable_redis.past()
        job = await enqueue(relay, "scripted-story:chunks=3")
        await heard(relay, job)
        durable_redis.rewind(past)
        lost = await relay.records.find(job)
        later = await heard(relay, await enqueue(relay, "scripted-story:chunks=3"))

        assert lost is None
        assert later[-1].type == "done"


async def test_a_failover_to_a_replica_that_is_behind_loses_no_answer(tmp_path: Path) -> None:
    with two_servers(tmp_path) as (primary, replica):
        async with proxy_to(primary.port) as front, proxy_to(primary.port) as feed:
            replica.say("REPLICAOF", "127.0.0.1", str(feed.port))
            await eventually(lambda: b"link_status:up" in replica.say("INFO", "replication"))
            async with running_at(front.redis_url, tmp_path) as relay:
                whole = await whole_text(relay)
                job = await enqueue(relay)
                following = asyncio.create_task(heard(relay, job))
                await until_delta(relay, job, 10)
                feed.swallow()
                await until_delta(relay, job, 30)
                primary.stop(signal.SIGKILL)
                replica.say("REPLICAOF", "NO", "ONE")
                front.target = replica.port
                front.cut()
                frames = await following
                logged = await heard(relay, job)

        assert [whole, whole] == [text(frames), text(logged)]
        assert "log_reset" in {frame.type for frame in frames}


async def test_a_full_redis_refuses_new_jobs_and_finishes_those_that_run(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    async with running(own_redis, tmp_path) as relay:
        with serving(own_redis.url) as shim:
            whole = await whole_text(relay)
            job = await enqueue(relay)
            await until_delta(relay, job, 5)
            own_redis.say("CONFIG", "SET", "maxmemory", "1")
            async with httpx.AsyncClient(base_url=shim, timeout=20) as http:
                refused = await http.post("/api/v1/jobs/chat", json=BODY)
                frames = await heard(relay, job)
                own_redis.say("CONFIG", "SET", "maxmemory", "0")
                taken = await http.post("/api/v1/jobs/chat", json=BODY)
                later = await heard(relay, taken.json()["id"])

            assert "full" in problem(refused, 503, "relay_unavailable")["detail"]
            assert int(refused.headers["retry-after"]) >= 1
            assert whole == text(frames)
            assert {1} == {frame.id.attempt for frame in frames}
            assert later[-1].type == "done"


async def test_what_waits_in_a_full_redis_is_worked_off(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    # Only the way in is closed: claims, cancels, hand-overs and last words make room.
    async with running(own_redis, tmp_path, LLM_SCRIPTED="scripted://?slots=2") as relay:
        jobs = [await enqueue(relay, "scripted-story:chunks=5,rate=10") for _ in range(20)]
        unwanted = await enqueue(relay)
        own_redis.say("CONFIG", "SET", "maxmemory", "1")
        cancelled = await relay.queue.cancel(unwanted, by="caller")
        ends = [(await heard(relay, job))[-1].type for job in jobs]

        assert cancelled.status == "cancelled"
        assert {"done"} == set(ends)


async def test_a_worker_that_starts_while_redis_is_full_is_on_the_roster_and_works(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    async with relay_on(own_redis.url) as relay:
        job = await enqueue(relay, "scripted-story:chunks=5")
        own_redis.say("CONFIG", "SET", "maxmemory", "1")
        with worker(own_redis.url, tmp_path) as one:
            await one.ready(relay)
            frames = await heard(relay, job)

            assert frames[-1].type == "done"
            assert one.popen.poll() is None


@pytest.mark.parametrize("skew_s", [-3600, 3600])
async def test_a_worker_whose_clock_is_wrong_keeps_leases_and_deadlines(
    own_redis: RedisServer, tmp_path: Path, skew_s: int
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        f"import time\nreal = time.time\ntime.time = lambda: real() + {skew_s}\n"
    )
    env = {"PYTHONPATH": str(tmp_path), "LLM_SCRIPTED": "scripted://?slots=4"}
    async with running(own_redis, tmp_path, LLM_SCRIPTED=env["LLM_SCRIPTED"]) as relay:
        skewed = WorkerProcess(own_redis.url, tmp_path, **LEASE, **env)
        try:
            await skewed.ready(relay)
            jobs = [await enqueue(relay) for _ in range(4)]
            late = [await enqueue(relay, deadline_s=1.5) for _ in range(4)]
            ends = [await heard(relay, job) for job in jobs]
            too_late = [await heard(relay, job) for job in late]
        finally:
            await asyncio.to_thread(skewed.end)
        workers = {(await relay.records.get(job)).worker for job in [*jobs, *late]}
        times = [frame.at for frames in ends for frame in frames]

        assert skewed.name in workers
        assert {1} == {frame.id.attempt for frames in ends for frame in frames}
        assert {"done"} == {frames[-1].type for frames in ends}
        assert {"deadline_exceeded"} == {frames[-1].event.code for frames in too_late}
        assert max(times) - min(times) < 60
