"""What ended jobs keep in Redis, of 16 and of 500 chunks, before and after compaction."""

import asyncio
from typing import Final

from pydantic import SecretStr

from bench.drive import answers_per_s, connected
from bench.stage import HEADERS, Stage, Through
from bench.targets import PROMPT, model, said_by
from bench.wire import post
from relay.connection import Connection
from relay.settings import RelaySettings

JOBS: Final = {16: 400, 500: 100}
WARM_UP: Final = 50
CALLERS: Final = 16
STEPS: Final = 4
"""Points of the curve."""
SETTLES_S: Final = 0.5
COMPACT_AFTER_S: Final = 1
_COMPACTED_WITHIN_S: Final = 30.0
_STABLE_S: Final = 5.0
"""Longer than the maintainer pauses."""


async def measure(stage: Stage) -> None:
    """One fleet that does not compact meanwhile, one that compacts soon."""
    with stage.fleet(FLEET_COMPACT_AFTER_S="3600") as fleet:
        async with Connection.open(RelaySettings(redis_url=SecretStr(fleet.redis_url))) as redis:
            await _warm_up(fleet)
            for chunks, jobs in JOBS.items():
                await _ended(stage, fleet, redis, chunks, stage.plan.jobs(jobs))
    with stage.fleet(FLEET_COMPACT_AFTER_S=str(COMPACT_AFTER_S)) as fleet:
        async with Connection.open(RelaySettings(redis_url=SecretStr(fleet.redis_url))) as redis:
            await _warm_up(fleet)
            for chunks, jobs in JOBS.items():
                await _compacted(stage, fleet, redis, chunks, stage.plan.jobs(jobs))
    for chunks in JOBS:
        kept, compacted = (
            stage.figures.median(f"fleet/{figure}/{chunks}") or 0.0
            for figure in ("ended_kb", "compacted_kb")
        )
        stage.say(f"an ended job of {chunks} chunks: {kept:.2f} KB, compacted {compacted:.2f} KB")


async def _warm_up(fleet: Through) -> None:
    await _run(fleet, 16, WARM_UP)
    await _run(fleet, 500, CALLERS)


async def _ended(stage: Stage, fleet: Through, redis: Connection, chunks: int, jobs: int) -> None:
    figures = stage.figures
    await asyncio.sleep(SETTLES_S)
    before, used = await _used(redis), 0.0
    for step in range(1, STEPS + 1):
        await _run(fleet, chunks, jobs // STEPS)
        await asyncio.sleep(SETTLES_S)
        used = await _used(redis) - before
        figures.add(f"fleet/kept_kb of {chunks} chunks/{jobs // STEPS * step}", used / 1024)
    figures.add(f"fleet/ended_kb/{chunks}", used / 1024 / (jobs // STEPS * STEPS))
    figures.add(f"fleet/text_kb/{chunks}", len(said_by(model(chunks)).encode()) / 1024)


async def _compacted(
    stage: Stage, fleet: Through, redis: Connection, chunks: int, jobs: int
) -> None:
    before = await _least(redis)
    await _run(fleet, chunks, jobs)
    used = (await _least(redis) - before) / 1024
    stage.figures.add(f"fleet/compact_kb of {chunks} chunks/{jobs}", used)
    stage.figures.add(f"fleet/compacted_kb/{chunks}", used / jobs)


async def _run(fleet: Through, chunks: int, jobs: int) -> None:
    name = model(chunks)
    body = {"model": name, "messages": [{"role": "user", "content": PROMPT}]}
    request = post("/v1/chat/completions", body, HEADERS)
    async with connected(fleet.target.port, min(CALLERS, jobs)) as lines:
        await answers_per_s(lines, request, said_by(name).strip()[-20:].encode(), jobs)


async def _used(redis: Connection) -> float:
    """Bytes, without the buffers of connections and of the append-only file."""
    told = await redis.command("INFO", "memory")
    buffers = ("mem_clients_normal", "mem_aof_buffer")
    return float(told["used_memory"]) - sum(float(told[name]) for name in buffers)


async def _least(redis: Connection) -> float:
    """Bytes once compaction has had its time and memory does not fall any more."""
    loop = asyncio.get_running_loop()
    least, began = await _used(redis), loop.time()
    fell_at = began
    while loop.time() - began < _COMPACTED_WITHIN_S and loop.time() - fell_at < _STABLE_S:
        await asyncio.sleep(0.5)
        used = await _used(redis)
        if used < least * 0.999:
            least, fell_at = used, loop.time()
    return least
