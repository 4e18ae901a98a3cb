"""Workers that retire (SIGUSR2): they finish what they have, however long it takes, and end."""

import asyncio
import signal
from pathlib import Path

from support.processes import worker
from support.relay import QUEUE, Relay, relay_on
from typer.testing import CliRunner

from contract.chat import ChatRequest, Message
from fleet.cli.app import app


async def running(relay: Relay, chunks: int) -> str:
    """A job of so many chunks, twenty a second, that a worker has begun."""
    model = f"scripted-story:chunks={chunks},rate=20"
    request = ChatRequest(model=model, messages=(Message(role="user", content="tell"),))
    record, _ = await relay.queue.enqueue(request, queue=QUEUE)
    async with asyncio.timeout(20):
        while (await relay.records.get(record.id)).status != "running":
            await asyncio.sleep(0.02)
    return record.id


async def test_a_worker_that_retires_ends_after_its_job_and_takes_no_other(
    redis_url: str, tmp_path: Path
) -> None:
    async with relay_on(redis_url) as relay:
        with worker(redis_url, tmp_path, FLEET_DRAIN_S="0") as retires:
            await retires.ready(relay)
            job = await running(relay, 40)
            retires.send(signal.SIGUSR2)
            await asyncio.sleep(0.2)
            later = await relay.enqueue()
            frames = await relay.frames(job)
            code = await asyncio.to_thread(retires.wait)
        waits = await relay.records.get(later)

    assert (frames[-1].type, code) == ("done", 0)
    assert waits.status == "queued"


async def test_the_command_of_a_container_waits_until_the_worker_has_finished(
    redis_url: str, tmp_path: Path
) -> None:
    async with relay_on(redis_url) as relay:
        with worker(redis_url, tmp_path, FLEET_DRAIN_S="0") as retires:
            await retires.ready(relay)
            job = await running(relay, 60)
            short = await asyncio.to_thread(retire, retires.popen.pid, 0.6)
            before = (await relay.records.get(job)).status
            code, long = await asyncio.gather(
                asyncio.to_thread(retires.wait), asyncio.to_thread(retire, retires.popen.pid, 30)
            )
        after = await relay.records.get(job)

    assert (short, before) == (1, "running")
    assert (long, code, after.status, after.tries) == (0, 0, "done", 1)


def retire(pid: int, within_s: float) -> int:
    words = ["worker", "retire", "--pid", str(pid), "--within", str(within_s)]
    return CliRunner().invoke(app, words).exit_code


async def test_a_worker_that_is_stopped_while_it_retires_hands_its_job_over(
    redis_url: str, tmp_path: Path
) -> None:
    async with relay_on(redis_url) as relay:
        with worker(redis_url, tmp_path, FLEET_DRAIN_S="0.5") as retires:
            await retires.ready(relay)
            job = await running(relay, 1000)
            retires.send(signal.SIGUSR2)
            await asyncio.sleep(1)
            before = (await relay.records.get(job)).status
            retires.send(signal.SIGTERM)
            code = await asyncio.to_thread(retires.wait)
        after = await relay.records.get(job)

    assert (before, after.status, code) == ("running", "queued", 0)
    assert after.tries == 0
