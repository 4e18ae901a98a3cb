"""What a chunk costs on the relay's path, beside what it would cost through redis-py and Celery.

    python -m bench.relay_path

Ours and theirs run in turns in one process against one server, medians of 5, ratios first.
Processor time, not wall time: another program on the machine changes it little.
"""

import tempfile
from contextlib import suppress
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Final

import redis
import uvloop
from pydantic import SecretStr

from bench.processes import redis as redis_server
from bench.relay_trials import TRIALS, Bench, Cost
from relay.connection import Connection
from relay.settings import RelaySettings

ROUNDS: Final = 5


async def measured(bench: Bench) -> None:
    """Print a table for each thing to do."""
    for title, trials in TRIALS.items():
        costs: dict[str, list[Cost]] = {name: [] for name, _, _ in trials}
        rates: dict[str, list[float]] = {name: [] for name, _, _ in trials}
        for _ in range(ROUNDS):
            for name, trial, items in trials:
                began = perf_counter()
                costs[name].append(await bench.cost(trial, items))
                rates[name].append(items / (perf_counter() - began))
                await bench.theirs.flushdb()
        ours = median(cost[0] for cost in next(iter(costs.values())))
        print(f"\n{title:<36}{'to ours':>10}{'us here':>10}{'us Redis':>10}{'a second':>10}")
        for name, values in costs.items():
            here, there = (median(cost[side] for cost in values) for side in (0, 1))
            rate = median(rates[name])
            print(f"{name:<36}{here / ours:>10.1f}{here:>10.1f}{there:>10.1f}{rate:>10,.0f}")


async def _measure(url: str) -> None:
    settings = RelaySettings(redis_url=SecretStr(url))
    async with Connection.open(settings) as connection:
        bench = Bench(url, connection)
        await measured(bench)
        await bench.theirs.aclose()


def _wait_for(url: str) -> None:
    with redis.Redis.from_url(url) as probe:
        for _ in range(100):
            with suppress(redis.ConnectionError):
                probe.ping()
                return
            sleep(0.05)
    raise TimeoutError("Redis did not come up")


def main() -> None:
    """Start a server, measure, stop it."""
    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder)) as (url, _):
        _wait_for(url)
        uvloop.run(_measure(url))


if __name__ == "__main__":
    main()
