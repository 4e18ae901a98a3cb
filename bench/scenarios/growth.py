"""Ten times as many waiting jobs, tenants, models, followers: a job's or chunk's cost as a ratio.

Jobs: Redis's own time and this process's CPU for enqueue, claim, start and cancel of one job, with
the relay itself. Chunks: CPU of worker, shim and Redis a chunk that reaches a follower.
"""

import asyncio
from collections.abc import Sequence
from time import process_time
from typing import Any, Final, NamedTuple

from pydantic import SecretStr
from pydantic_core import from_json

from bench.deep_queue import DeepQueue
from bench.drive import LIMIT_S, connected
from bench.meter import FLEET, Meter
from bench.processes import redis as redis_server
from bench.stage import Stage, Through
from bench.targets import Fleet, model
from bench.wire import Line, get
from relay.connection import Connection
from relay.settings import RelaySettings

TIMES: Final = 10
JOBS: Final = 300
ROUNDS: Final = 3


class Size(NamedTuple):
    """How large a queue is."""

    waiting: int = 1000
    tenants: int = 10
    models: int = 10


SIZES: Final = {
    "waiting jobs": Size(waiting=1000 * TIMES),
    "tenants": Size(tenants=10 * TIMES),
    "models": Size(models=10 * TIMES),
}
STREAMS: Final = 20
CHUNKS: Final = 60
RATE: Final = 20


async def measure(stage: Stage) -> None:
    """Each size against the small one, then followers."""
    figures = stage.figures
    folder = stage.folder / "growth"
    with redis_server(folder) as (url, _):
        await _answers(url)
        settings = RelaySettings(redis_url=SecretStr(url), queue_limit=10**6)
        async with Connection.open(settings) as connection:
            for _ in stage.rounds(ROUNDS, share=0.6):
                small = await _job_us(connection, Size(), stage)
                for name, size in SIZES.items():
                    ratio = await _job_us(connection, size, stage) / small
                    figures.add(f"fleet/growth/{name}", ratio)
    with stage.fleet() as fleet:
        await _chunk_us(fleet, 1)
        for _ in stage.rounds(ROUNDS, share=0.4):
            one, many = await _chunk_us(fleet, 1), await _chunk_us(fleet, TIMES)
            figures.add("fleet/growth/followers", many / one)
    for name in (*SIZES, "followers"):
        stage.say(f"{TIMES} times the {name}: {figures.median(f'fleet/growth/{name}') or 0:.2f}")


async def _answers(url: str) -> None:
    async with Connection.open(RelaySettings(redis_url=SecretStr(url))) as connection:
        async with asyncio.timeout(LIMIT_S):
            await connection.ping()


async def _job_us(connection: Connection, size: Size, stage: Stage) -> float:
    """Microseconds of Redis and of this process for a job's way through a queue of this size."""
    await connection.command("FLUSHALL")
    deep = DeepQueue(connection, tenants=size.tenants, models=size.models)
    async with asyncio.timeout(LIMIT_S):
        await deep.fill(stage.plan.jobs(size.waiting))
        count = stage.plan.jobs(JOBS)
        before, began = await _redis_us(connection), process_time()
        for _ in range(count):
            await deep.enqueue()
            await deep.claim()
            await deep.end_claimed()
        here = (process_time() - began) * 1e6
        return (await _redis_us(connection) - before + here) / count


async def _redis_us(connection: Connection) -> float:
    told: dict[str, Any] = await connection.command("INFO", "commandstats")
    scripts = ("cmdstat_evalsha", "cmdstat_eval", "cmdstat_fcall")
    return sum(float(told[name]["usec"]) for name in scripts if name in told)


async def _chunk_us(fleet: Through, followers: int) -> float:
    """Microseconds of CPU a chunk and follower, of streams with so many followers each."""
    native = Fleet(fleet.target.port, "bench")
    async with connected(native.port, STREAMS * followers) as lines, asyncio.timeout(LIMIT_S):
        meter = Meter(fleet.processes)
        asked = [line.ask(native.request(model(CHUNKS, RATE))) for line in lines[:STREAMS]]
        urls = [str(from_json(each.body)["events_url"]) for each in await asyncio.gather(*asked)]
        await asyncio.gather(*_following(lines, urls))
        spent = meter.cpu_s()
    return sum(spent[name] for name in FLEET) * 1e6 / (STREAMS * followers * CHUNKS)


def _following(lines: Sequence[Line], urls: Sequence[str]) -> list[Any]:
    return [
        line.ask(get(urls[number % STREAMS], "application/x-ndjson"), b'"type":"delta"')
        for number, line in enumerate(lines)
    ]
