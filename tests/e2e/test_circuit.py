"""A backend that is out of order: jobs wait in order, whole, until it is back."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from support.processes import Process, worker
from support.redis_server import free_port
from support.relay import Relay, relay_on

from contract.chat import ChatRequest, Message
from contract.roster import BackendReport, QueueReport

QUICK = {"FLEET_CHECK_S": "60", "FLEET_BREAKER_OPEN_S": "0.5", "FLEET_REAP_S": "60"}
"""The backend is probed only when a circuit is due, and reapers come too late to help."""


def server(folder: Path, port: int) -> Process:
    module = ["-m", "workers.scripted.server", "--port", str(port)]
    return Process([sys.executable, *module], {}, folder / f"server-{port}.log")


async def enqueue(relay: Relay, model: str = "scripted-story:chunks=3", **fields: object) -> str:
    request = ChatRequest(model=model, messages=(Message(role="user", content="tell"),), **fields)
    record, _ = await relay.queue.enqueue(request, queue="box.chat")
    return record.id


async def reported(relay: Relay) -> tuple[BackendReport, QueueReport]:
    (one,) = await relay.roster.workers()
    return one.backends[0], next(queue for queue in one.queues if queue.kind == "chat")


async def until(relay: Relay, true: Callable[[BackendReport, QueueReport], object]) -> None:
    async with asyncio.timeout(15):
        while not true(*await reported(relay)):
            await asyncio.sleep(0.02)


async def place(relay: Relay, job: str) -> str:
    """Where a job runs, once it does."""
    async with asyncio.timeout(15), aclosing(relay.log.follow(job)) as pages:
        async for frames in pages:
            for frame in frames:
                if frame.type == "started":
                    return str(frame.event.endpoint)
    raise AssertionError


async def ended(relay: Relay, *jobs: str) -> list[str]:
    async with asyncio.timeout(30):
        logs = await asyncio.gather(*(relay.frames(job) for job in jobs))
    return [frames[-1].type for frames in logs]


@asynccontextmanager
async def box(redis_url: str, folder: Path, dsn: str, **env: str) -> AsyncGenerator[Relay]:
    with worker(redis_url, folder, "box", LLM_BOX=dsn, **{**QUICK, **env}) as one:
        async with relay_on(redis_url) as relay:
            await one.ready(relay)
            yield relay


async def test_jobs_for_a_backend_that_is_down_wait_in_order_and_lose_no_attempt(
    redis_url: str, tmp_path: Path
) -> None:
    port = free_port()
    async with box(redis_url, tmp_path, f"ollama://127.0.0.1:{port}?slots=1") as relay:
        await until(relay, lambda _, queue: queue.circuit_open_until)
        jobs = [await enqueue(relay, max_attempts=1) for _ in range(5)]
        waiting = [(await relay.records.get(job)).status for job in jobs]
        backend, queue = await reported(relay)
        late = server(tmp_path, port)
        try:
            ends = await ended(relay, *jobs)
            records = [await relay.records.get(job) for job in jobs]
            await until(relay, lambda backend, _: backend.healthy)
            after = await reported(relay)
        finally:
            late.end()

        assert waiting == ["queued"] * 5
        assert (queue.circuit_open_until or 0.0) > relay.connection.now() - 60
        assert backend.endpoints[0].circuit_open_until
        assert ends == ["done"] * 5
        assert {1} == {record.attempt for record in records}
        assert [r.started_at for r in records] == sorted(r.started_at or 0.0 for r in records)
        assert after[1].circuit_open_until is None


async def test_a_model_that_fails_every_job_rests_while_the_others_run(
    redis_url: str, tmp_path: Path
) -> None:
    port = free_port()
    one = server(tmp_path, port)
    dsn = f"ollama://127.0.0.1:{port}?slots=8"
    broken = "scripted-story:chunks=3,fail=crash,times=4"
    try:
        async with box(redis_url, tmp_path, dsn, FLEET_BREAKER_FAILURES="3") as relay:
            failing = await enqueue(relay, broken, max_attempts=100)
            await until(relay, lambda _, queue: broken in (queue.model_circuits or {}))
            _, queue = await reported(relay)
            jobs = [await enqueue(relay) for _ in range(20)]
            ends = await ended(relay, failing, *jobs)
            attempts = [(await relay.records.get(job)).attempt for job in jobs]

            assert set(ends) == {"done"}
            assert set(attempts) == {1}
            assert queue.circuit_open_until is None
    finally:
        one.end()


async def test_of_two_endpoints_the_one_that_works_takes_the_jobs(
    redis_url: str, tmp_path: Path
) -> None:
    up, down = free_port(), free_port()
    one = server(tmp_path, up)
    try:
        dsn = f"ollama://127.0.0.1:{down},127.0.0.1:{up}?slots=2"
        async with box(redis_url, tmp_path, dsn) as relay:
            await until(relay, lambda backend, _: backend.healthy)
            jobs = [await enqueue(relay, max_attempts=1) for _ in range(10)]
            ends = await ended(relay, *jobs)
            logs = await asyncio.gather(*(relay.frames(job) for job in jobs))
            places = {f.event.endpoint for log in logs for f in log if f.type == "started"}
            backend, queue = await reported(relay)

            assert ends == ["done"] * 10
            assert places == {"box/2"}
            assert queue.circuit_open_until is None
            assert [each.healthy for each in backend.endpoints] == [False, True]
            assert backend.endpoints[0].circuit_open_until
    finally:
        one.end()


async def test_two_endpoints_share_the_jobs(redis_url: str, tmp_path: Path) -> None:
    ports = [free_port(), free_port()]
    both = [server(tmp_path, port) for port in ports]
    try:
        dsn = f"ollama://127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}?slots=2"
        async with box(redis_url, tmp_path, dsn) as relay:
            await until(relay, lambda backend, _: all(it.healthy for it in backend.endpoints))
            jobs = [await enqueue(relay, "scripted-story:chunks=900,rate=5") for _ in range(5)]
            places = [await place(relay, job) for job in jobs[:4]]
            waiting = await relay.records.get(jobs[4])
            for job in jobs:
                await relay.queue.cancel(job, by="caller")

            assert [places.count(label) for label in ("box/1", "box/2")] == [2, 2]
            assert waiting.status == "queued"
            assert (await reported(relay))[1].slots == 4
    finally:
        for each in both:
            each.end()


async def test_an_endpoint_that_dies_in_mid_answer_is_replaced_by_another(
    redis_url: str, tmp_path: Path
) -> None:
    ports = [free_port(), free_port()]
    both = dict(zip(ports, [server(tmp_path, port) for port in ports], strict=True))
    try:
        dsn = f"ollama://127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}"
        async with box(redis_url, tmp_path, dsn) as relay:
            await until(relay, lambda backend, _: all(it.healthy for it in backend.endpoints))
            job = await enqueue(relay, "scripted-story:chunks=60,rate=30")
            async with asyncio.timeout(20):
                while not (await relay.result(job)).content:
                    await asyncio.sleep(0.02)
            (frames,) = [page async for page in relay.log.read(job)]
            first = next(f.event.endpoint for f in frames if f.type == "started")
            both[ports[int(first.removeprefix("box/")) - 1]].popen.kill()
            async with asyncio.timeout(20):
                frames = await relay.frames(job)
            places = [f.event.endpoint for f in frames if f.type == "started"]

            assert frames[-1].type == "done"
            assert len(places) == 2
            assert places[0] != places[1]
    finally:
        for each in both.values():
            each.end()
