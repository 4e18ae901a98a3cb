"""Cancel while the job's worker is dead or stopped: final at once, and nothing is added later."""

import asyncio
import signal
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
from support.processes import WorkerProcess, until_logged, worker
from support.queues import left_in_queues, nothing_waits
from support.relay import Relay, relay_on

from contract.chat import ChatRequest, Message
from contract.events import Cancelled, Frame
from contract.result import fold
from relay.scripts import jobs
from workers.scripted.server import ScriptedServer, serve

LONG_LEASE = {"FLEET_LEASE_S": "120", "FLEET_RENEW_S": "55"}
SHORT_LEASE = {"FLEET_LEASE_S": "1", "FLEET_RENEW_S": "0.3", "FLEET_REAP_S": "0.3"}
WORDS = "scripted-story:chunks=5000,rate=20"
SILENCE = "scripted-story:first=60"


@asynccontextmanager
async def running(
    redis_url: str, folder: Path, model: str, **env: str
) -> AsyncGenerator[tuple[Relay, ScriptedServer, WorkerProcess, str]]:
    """A job in the hands of a worker, whose backend has heard of it."""
    async with serve() as server, relay_on(redis_url) as relay:
        dsn = {"LLM_OLLAMA": server.url.replace("http", "ollama")}
        with worker(redis_url, folder, "ollama", **dsn, **env) as one:
            await one.ready(relay)
            request = ChatRequest(model=model, messages=(Message(role="user", content="tell"),))
            record, _ = await relay.queue.enqueue(request, queue="ollama.chat")
            await server.seen.until(lambda seen: seen.open == 1)
            if model == WORDS:
                await until_delta(relay, record.id)
            yield relay, server, one, record.id


async def until_delta(relay: Relay, job: str) -> None:
    async with asyncio.timeout(10), aclosing(relay.log.follow(job)) as pages:
        async for frames in pages:
            if any(frame.type == "delta" for frame in frames):
                return


async def logged(relay: Relay, job: str) -> list[Frame]:
    return [frame async for page in relay.log.read(job) for frame in page]


async def test_the_worker_is_dead_and_its_lease_has_not_expired(
    redis_url: str, tmp_path: Path
) -> None:
    async with running(redis_url, tmp_path, WORDS, **LONG_LEASE) as (relay, _, dead, job):
        dead.send(signal.SIGKILL)
        await asyncio.to_thread(dead.wait)
        record = await relay.queue.cancel(job, by="caller")
        left = await left_in_queues(relay)
        frames = await relay.frames(job)
        await relay.leases.release_worker(dead.name)

        assert "cancelled" == record.status == frames[-1].type
        assert left == []
        assert fold(frame.event for frame in frames).content
        assert await logged(relay, job) == frames


@pytest.mark.parametrize("model", [WORDS, SILENCE])
@pytest.mark.parametrize("env", [LONG_LEASE, SHORT_LEASE], ids=["leased", "lapsed"])
async def test_a_stopped_worker_adds_nothing_when_it_wakes_up_and_lets_go_of_its_backend(
    redis_url: str, tmp_path: Path, model: str, env: dict[str, str]
) -> None:
    async with running(redis_url, tmp_path, model, **env) as (relay, server, stopped, job):
        stopped.send(signal.SIGSTOP)
        record = await relay.queue.cancel(job, by="caller")
        frames = await relay.frames(job)
        again = await relay.queue.cancel(job, by="caller")
        await asyncio.sleep(1.5 if env is SHORT_LEASE else 0)
        stopped.send(signal.SIGCONT)
        await server.seen.until(lambda seen: seen.aborted == 1, limit_s=2.0)
        await until_logged(stopped, f"job {job} was taken away")

        assert "cancelled" == record.status == frames[-1].type
        assert record == again
        assert await logged(relay, job) == frames
        await nothing_waits(relay)


async def test_the_stopped_worker_takes_the_next_job_when_it_wakes_up(
    redis_url: str, tmp_path: Path
) -> None:
    async with running(redis_url, tmp_path, SILENCE, **LONG_LEASE) as (relay, _, stopped, job):
        stopped.send(signal.SIGSTOP)
        await relay.queue.cancel(job, by="caller")
        stopped.send(signal.SIGCONT)
        request = ChatRequest(
            model="scripted-story:chunks=3", messages=(Message(role="user", content="tell"),)
        )
        record, _ = await relay.queue.enqueue(request, queue="ollama.chat")
        async with asyncio.timeout(10):
            frames = await relay.frames(record.id)

        assert frames[-1].type == "done"


async def test_a_silent_backend_is_let_go_of_although_the_shim_died_in_the_cancel(
    redis_url: str, tmp_path: Path
) -> None:
    env = LONG_LEASE | {"FLEET_RENEW_S": "0.3"}
    async with running(redis_url, tmp_path, SILENCE, **env) as (relay, server, _, job):
        end = jobs.end(job, Cancelled(by="caller"), relay.connection.settings)
        await relay.connection.call(end)  # and then no more

        await server.seen.until(lambda seen: seen.aborted == 1, limit_s=2.0)
