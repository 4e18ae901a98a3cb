"""What a job costs: CPU of every process, scripts and commands at Redis, and bursts of starts.

    python -m bench.job_cost                     all of it
    python -m bench.job_cost --callers 16 --jobs 800 --rounds 3

Chats of 16 chunks through `/v1/chat/completions`, not streamed, by so many callers; then streams
that are started at once, and how much later their first chunk comes than from the backend itself.
Medians of the rounds. Load generator and backend run on the same machine.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Final, NamedTuple

import uvloop
from pydantic import SecretStr

from bench.measure import Meter
from bench.processes import BACKEND, Running, backend, fleet
from bench.targets import PROMPT, OpenAiShaped, model
from bench.wire import Line, connect, post
from relay.connection import Connection
from relay.settings import RelaySettings

CHUNKS: Final = 16
BURSTS: Final = (1, 16, 64, 256)
STREAM: Final = "scripted-story:chunks=64,rate=50,first=0.05"
HEADERS: Final = {"X-Fleet-Backend": BACKEND}
SCRIPTS: Final = ("evalsha", "eval")


class Cost(NamedTuple):
    """One round of chats."""

    jobs_per_s: float
    cpu_ms: dict[str, float]
    """Milliseconds of CPU a job, by process."""
    redis_ms: float
    """Milliseconds a job that Redis spent in commands."""
    scripts: float
    """Scripts a job."""
    commands: dict[str, float]
    """Commands a job, those inside scripts included."""


async def _stats(redis: Connection) -> dict[str, Any]:
    stats: dict[str, Any] = await redis.command("INFO", "commandstats")
    return {name.removeprefix("cmdstat_"): each for name, each in stats.items()}


async def chats(
    port: int, processes: Mapping[str, Running], redis: Connection, *, callers: int, jobs: int
) -> Cost:
    """Run chats by `callers` at once until `jobs` are done."""
    body = {"model": model(CHUNKS), "messages": [{"role": "user", "content": PROMPT}]}
    request = post("/v1/chat/completions", body, HEADERS)
    lines = await asyncio.gather(*(connect(port) for _ in range(callers)))
    left = iter(range(jobs))

    async def call(line: Line) -> None:
        for _ in left:
            await line.ask(request)

    await asyncio.gather(*(line.ask(request) for line in lines))
    before, meter, began = await _stats(redis), Meter(processes), perf_counter()
    await asyncio.gather(*map(call, lines))
    took, cpu_s, after = perf_counter() - began, meter.cpu_s(), await _stats(redis)
    for line in lines:
        line.close()

    def grown(name: str, field: str) -> float:
        return float(after[name][field]) - float(before.get(name, {}).get(field, 0))

    calls = {name: grown(name, "calls") / jobs for name in after if name != "info"}
    return Cost(
        jobs / took,
        {name: spent * 1000 / jobs for name, spent in cpu_s.items()},
        sum(grown(name, "usec") for name in after if name in SCRIPTS) / jobs / 1000,
        sum(calls.get(name, 0.0) for name in SCRIPTS),
        {name: count for name, count in sorted(calls.items()) if count >= 0.05},
    )


async def first_chunk_ms(target: OpenAiShaped, streams: int) -> float:
    """The median milliseconds to the first chunk of streams that start at once."""
    lines = await asyncio.gather(*(connect(target.port) for _ in range(streams)))
    heard = await asyncio.gather(*(target.chat(line, STREAM) for line in lines))
    for line in lines:
        line.close()
    return median(each.first_s * 1000 for each in heard)


def _print_cost(costs: list[Cost], callers: int) -> None:
    def mid(values: list[float]) -> float:
        return median(values)

    cpu = {name: mid([c.cpu_ms[name] for c in costs]) for name in costs[0].cpu_ms}
    fleet_ms = sum(cpu[name] for name in ("worker", "shim", "redis"))
    print(f"\n{callers} callers: {mid([c.jobs_per_s for c in costs]):.0f} chats/s")
    print(f"  CPU a job: {fleet_ms:.2f} ms", {name: round(ms, 2) for name, ms in cpu.items()})
    print(
        f"  Redis in scripts: {mid([c.redis_ms for c in costs]):.2f} ms,"
        f" {mid([c.scripts for c in costs]):.1f} scripts a job"
    )
    print("  commands a job:", {n: round(v, 1) for n, v in costs[-1].commands.items()})


async def measure(
    direct: OpenAiShaped, port: int, url: str, processes: Mapping[str, Running], args: Any
) -> None:
    """Print the figures."""
    through = OpenAiShaped("fleet", port, HEADERS)
    settings = RelaySettings(redis_url=SecretStr(url))
    async with Connection.open(settings) as redis:
        for callers in args.callers:
            rounds = [
                await chats(port, processes, redis, callers=callers, jobs=args.jobs)
                for _ in range(args.rounds)
            ]
            _print_cost(rounds, callers)
    print("\nadded to the first chunk, streams started at once:")
    for streams in args.streams:
        added = [
            await first_chunk_ms(through, streams) - await first_chunk_ms(direct, streams)
            for _ in range(args.rounds)
        ]
        print(f"  {streams:>4}: {median(added):.1f} ms")


def main() -> None:
    """Start everything, measure, stop it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--callers", type=int, nargs="*", default=[16, 64])
    parser.add_argument("--streams", type=int, nargs="*", default=list(BURSTS))
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with backend(folder) as (direct, _), fleet(folder, direct.port) as (target, processes):
            url = target.redis_url
            uvloop.run(measure(direct, target.port, url, processes, args))


if __name__ == "__main__":
    main()
