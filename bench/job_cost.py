"""What a job costs and delays, in a minute: to compare before and after a change.

    python -m bench.job_cost                     what `make bench-quick` runs
    python -m bench.job_cost --callers 64 --streams 256 --jobs 400 --rounds 5

Chats of 16 chunks through `/v1/chat/completions`, not streamed: CPU a job of each process, scripts
and commands at Redis. Then streams that start at once, and how much later their first chunk comes
than from the backend itself. Medians of the rounds; nothing is written.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Final

import uvloop

from bench.drive import burst
from bench.scenarios import chats, starts
from bench.stage import Plan, Stage

LIMIT_S: Final = 240.0
CHUNKS: Final = 8
MODEL: Final = f"scripted-story:chunks={CHUNKS},rate=50,first=0.05"


async def measure(stage: Stage, callers: Sequence[int], streams: Sequence[int]) -> None:
    """Print the figures."""
    with stage.fleet() as fleet:
        for count in callers:
            for number in range(stage.plan.rounds + 1):
                await chats.measure_way(stage.figures, "fleet", fleet, count, stage.plan)
                if not number:
                    stage.figures.values.clear()  # the first round warms everybody up
            stage.say(f"{count} callers: {chats.told(stage.figures, count)}")
        for count in streams:
            added = []
            for _ in range(stage.plan.rounds * (5 if count == 1 else 1)):
                through = await burst(fleet.target, count, MODEL, CHUNKS)
                direct = await burst(stage.direct.target, count, MODEL, CHUNKS)
                added.append(through.first_ms - direct.first_ms)
                for fault in through.faults[:1]:
                    stage.say(f"{len(through.faults)} streams with a fault, such as: {fault}")
            spread = f"{min(added):.1f} to {max(added):.1f}"
            stage.say(f"{count:>4} streams: {median(added):.1f} ms to the first chunk ({spread})")


def main() -> None:
    """Start everything, measure, stop it."""
    parser = argparse.ArgumentParser(prog="python -m bench.job_cost", description=__doc__)
    parser.add_argument("--callers", type=int, nargs="*", default=[16])
    parser.add_argument("--streams", type=int, nargs="*", default=list(starts.STREAMS))
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    plan = Plan(given.rounds, with_peers=False, scale=given.jobs / chats.JOBS["fleet"])
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        stage = Stage(plan, Path(folder), stack)

        async def bounded() -> None:
            async with asyncio.timeout(LIMIT_S):
                await measure(stage, given.callers, given.streams)

        uvloop.run(bounded())


if __name__ == "__main__":
    main()
