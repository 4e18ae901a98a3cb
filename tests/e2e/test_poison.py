"""A job whose worker dies every time, and its neighbours; a ticket that comes twice."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from support.processes import WorkerProcess, worker
from support.relay import Relay, relay_on

from contract.chat import ChatRequest, Message
from contract.events import Frame

DYING = {"LLM_SCRIPTED": "scripted://?may_die=1"}
POISON = "scripted-story:chunks=10,fail=die:2"


async def enqueue(relay: Relay, model: str, **fields: object) -> str:
    request = ChatRequest(model=model, messages=(Message(role="user", content="tell"),), **fields)
    record, _ = await relay.queue.enqueue(request, queue="scripted.chat")
    return record.id


async def heard(relay: Relay, job: str) -> list[Frame]:
    async with asyncio.timeout(60):
        return await relay.frames(job)


class Supervisor:
    """Keeps one worker running, and gives back at once what a dead one held."""

    def __init__(self, relay: Relay, redis_url: str, folder: Path) -> None:
        self.deaths = 0
        self._relay = relay
        self._arguments = redis_url, folder
        self.worker = WorkerProcess(*self._arguments, **DYING)

    async def supervise(self) -> None:
        try:
            while True:
                while self.worker.popen.poll() is None:
                    await asyncio.sleep(0.01)
                self.deaths += 1
                await self._relay.leases.release_worker(self.worker.name)
                self.worker = WorkerProcess(*self._arguments, **DYING)
        finally:
            self.worker.end()


@asynccontextmanager
async def supervised(redis_url: str, folder: Path) -> AsyncGenerator[tuple[Relay, Supervisor]]:
    async with relay_on(redis_url) as relay:
        supervisor = Supervisor(relay, redis_url, folder)
        task = asyncio.create_task(supervisor.supervise())
        await supervisor.worker.ready(relay)
        try:
            yield relay, supervisor
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def test_a_poison_job_ends_as_a_dead_letter_and_its_neighbours_finish(
    redis_url: str, tmp_path: Path
) -> None:
    async with supervised(redis_url, tmp_path) as (relay, supervisor):
        neighbours = [await enqueue(relay, "scripted-story:chunks=40,rate=20") for _ in range(5)]
        poison = await enqueue(relay, POISON)
        last = (await heard(relay, poison))[-1]
        ends = [(await heard(relay, job))[-1].type for job in neighbours]
        record = await relay.records.get(poison)

        assert (last.type, last.event.code) == ("failed", "worker_lost")
        assert (record.dead_at is not None, record.tries) == (True, 3)
        assert supervisor.deaths == 3
        assert ends == ["done"] * 5


async def test_a_ticket_that_comes_twice_makes_one_call_to_the_backend(
    redis_url: str, tmp_path: Path
) -> None:
    # celery #5935, #3270, #2481: a visibility timeout delivers a running task again;
    # the shortest of any app on the broker counts (celery, redis.rst).
    with worker(redis_url, tmp_path) as one:
        async with relay_on(redis_url) as relay:
            await one.ready(relay)
            job = await enqueue(relay, "scripted-story:chunks=20,rate=20")
            for _ in range(5):
                await relay.claims.give_ticket_back("scripted.chat")
            frames = await heard(relay, job)
            later = await heard(relay, await enqueue(relay, "scripted-story:chunks=3"))

            assert [frame.type for frame in frames].count("started") == 1
            assert {1} == {frame.id.attempt for frame in (*frames, *later) if frame.id}
            async with asyncio.timeout(10):
                while f"job {job} ended" not in one.text():
                    await asyncio.sleep(0.05)
            assert one.text().count(f"job {job} ended") == 1
