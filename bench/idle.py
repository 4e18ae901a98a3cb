"""What an idle fleet costs: processor time of real workers, and commands at Redis.

    python -m bench.idle                         6 workers, 60 s
    python -m bench.idle --workers 3 --seconds 20

Each worker serves one queue of a backend of its own. A hundred workers are these ones, counted as
often, beside the one maintainer. Ends with 1 if a bound is broken.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr

from bench.processes import Running, environment, redis, started
from relay.connection import Connection
from relay.roster import RosterStore
from relay.settings import RelaySettings

CORE_PERCENT: Final = 0.5
"""Most of a core that an idle worker may use."""
COMMANDS_A_SECOND: Final = 50.0
"""Most that Redis may be asked by a hundred idle workers with a hundred queues."""
FLEET: Final = 100
SETTLES_S: Final = 15.0
EACH: Final = frozenset({"brpop", "expire", "ping", "setex", "zadd"})
"""What every worker asks; the rest is the maintainer's, of whom there is one."""


async def counted(connection: Connection) -> dict[str, int]:
    """How often each command was called, those inside scripts included."""
    told: dict[str, Any] = await connection.command("INFO", "commandstats")
    calls = {name.removeprefix("cmdstat_"): int(each["calls"]) for name, each in told.items()}
    return {name: count for name, count in calls.items() if name != "info"}


async def measured(url: str, count: int, seconds: float) -> dict[str, float]:
    """Calls a second of each command, once `count` workers are idle."""
    settings = RelaySettings(redis_url=SecretStr(url))
    async with Connection.open(settings) as connection:
        while len(await RosterStore(connection).workers()) < count:  # noqa: ASYNC110 - other processes
            await asyncio.sleep(0.5)
        await asyncio.sleep(SETTLES_S)
        before = await counted(connection)
        await asyncio.sleep(seconds)
        after = await counted(connection)
    more = {name: (calls - before.get(name, 0)) / seconds for name, calls in after.items()}
    return {name: rate for name, rate in sorted(more.items()) if rate}


def worker(url: str, number: int, folder: Path, stack: ExitStack) -> Running:
    """Start a worker with a backend and a queue of its own."""
    variables = environment(
        FLEET_REDIS_URL=url,
        FLEET_WORKER_BACKEND=f"idle{number}",
        FLEET_WORKER_KINDS="chat",
        **{f"LLM_IDLE{number}": "scripted://"},
    )
    command = f"{sys.executable} -m workers"
    return stack.enter_context(started(f"worker{number}", command, variables, folder))


def measure(count: int, seconds: float) -> bool:
    """Measure and print; whether both bounds hold."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url, server = stack.enter_context(redis(folder / "redis"))
        workers = [worker(url, number, folder, stack) for number in range(count)]
        before: list[float] = []
        began = 0.0

        async def both() -> dict[str, float]:
            nonlocal began
            asking = asyncio.create_task(measured(url, count, seconds))
            await asyncio.sleep(2 * SETTLES_S)
            before.extend(each.usage().cpu_s for each in (*workers, server))
            began = time.monotonic()
            return await asking

        rates = asyncio.run(both())
        used = [each.usage().cpu_s for each in (*workers, server)]
        shares = [
            100 * (b - a) / (time.monotonic() - began) for a, b in zip(before, used, strict=True)
        ]
    return told(rates, shares, count)


def told(rates: dict[str, float], shares: list[float], count: int) -> bool:
    """Print what was measured; whether both bounds hold."""
    each = sum(rate for name, rate in rates.items() if name in EACH) / count
    one = sum(rate for name, rate in rates.items() if name not in EACH)
    fleet, most = FLEET * each + one, max(shares[:-1])
    print("commands a second:", {name: round(rate, 2) for name, rate in rates.items()})
    print(f"a worker {each:.2f}, the maintainer {one:.2f}, {FLEET} workers {fleet:.1f}")
    print(f"of a core: worker {most:.2f} % at the most, Redis {shares[-1]:.2f} %")
    return fleet < COMMANDS_A_SECOND and most < CORE_PERCENT


def main() -> int:
    """Measure; 1 if a bound is broken."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=60.0)
    chosen = parser.parse_args()
    return 0 if measure(chosen.workers, chosen.seconds) else 1


if __name__ == "__main__":
    sys.exit(main())
