"""Jobs for later and paused queues with real workers: prompt, once, and whoever is killed.

Subjects: relay/parents.py, relay/scheduling/pauses.py, workers/maintenance.py.
"""

import asyncio
import signal
import time
from pathlib import Path

from support.processes import WorkerProcess, worker
from support.redis_server import RedisServer
from support.relay import Relay, chat, relay_on

from relay.scheduling.pauses import QueuePauses

QUEUE = "scripted.chat"
QUICK = {"FLEET_LEASE_S": "2", "FLEET_RENEW_S": "0.5", "FLEET_REAP_S": "1"}


async def enqueue(relay: Relay, model: str = "scripted-story:chunks=3", **fields: object) -> str:
    request = chat(**fields).model_copy(update={"model": model})
    return (await relay.queue.enqueue(request, queue=QUEUE))[0].id


async def until_ended(relay: Relay, job: str) -> str:
    async with asyncio.timeout(30):
        frames = await relay.frames(job)
    return frames[-1].type


async def maintains(relay: Relay, one: WorkerProcess) -> None:
    async with asyncio.timeout(20):
        while await relay.connection.command("GET", "fleet:maintainer") != one.name.encode():
            await asyncio.sleep(0.05)


async def test_a_chain_of_jobs_needs_no_pass_of_the_maintainer_between_two(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    slow = {**QUICK, "FLEET_REAP_S": "3", "FLEET_LEASE_S": "30", "FLEET_RENEW_S": "4"}
    with worker(own_redis.url, tmp_path, **slow) as one:
        async with relay_on(own_redis.url) as relay:
            await one.ready(relay)
            await maintains(relay, one)
            chain = [await enqueue(relay)]
            for _ in range(6):
                chain.append(await enqueue(relay, after=(chain[-1],)))
            began_at = time.monotonic()
            ends = [await until_ended(relay, job) for job in chain]

    assert ends == ["done"] * 7
    assert time.monotonic() - began_at < 6 * 3


async def test_what_is_paused_or_scheduled_survives_the_only_worker_and_a_restart_of_redis(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    async with relay_on(own_redis.url) as relay:
        with worker(own_redis.url, tmp_path, **QUICK) as one:
            await one.ready(relay)
            running = await enqueue(relay, "scripted-story:chunks=200,rate=50")
            child = await enqueue(relay, after=(running,))
            at = relay.connection.now() + 3
            later = await enqueue(relay, not_before=at)
            async with asyncio.timeout(20):
                while (await relay.records.get(running)).status != "running":
                    await asyncio.sleep(0.02)
            await QueuePauses(relay.connection).pause(QUEUE)
            one.send(signal.SIGKILL)
        own_redis.stop(signal.SIGKILL)
        own_redis.start()
        with worker(own_redis.url, tmp_path, **QUICK) as two:
            await two.ready(relay)
            async with asyncio.timeout(20):
                while (await relay.records.get(running)).attempt < 2:
                    await asyncio.sleep(0.05)
            await asyncio.sleep(1)
            waiting = [(await relay.records.get(job)).status for job in (running, child, later)]
            await QueuePauses(relay.connection).resume(QUEUE)
            await relay.queue.wake_after_pause(QUEUE)
            ends = [await until_ended(relay, job) for job in (running, child, later)]
            started_at = (await relay.records.get(later)).started_at

    assert waiting == ["queued"] * 3
    assert ends == ["done"] * 3
    assert started_at is not None
    assert started_at >= at
