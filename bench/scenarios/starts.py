"""Streams of 50 chunks a second that start at once: delay of the first chunk, pace of the rest."""

import asyncio
from collections.abc import Mapping
from statistics import median
from typing import Final

from bench.drive import LIMIT_S, Burst, burst, connected
from bench.figures import Figures
from bench.stage import Stage, Through
from bench.targets import PACED, PACED_CHUNKS, PACED_SHORT

STREAMS: Final = (1, 16, 64, 256)
ALONE: Final = 10
"""Samples a round of one stream at a time."""
COLD_ROUNDS: Final = 3
REST_S: Final = 2.0
"""Without any job before a cold start: longer than a worker keeps its idle slots told."""
ROUNDS_OF_SLOW: Final = {16: 3, 64: 2, 256: 1}
"""Of LiteLLM, whose burst of 256 takes ten seconds."""


async def measure(stage: Stage) -> None:
    """Everybody in turn, round for round."""
    with stage.fleet() as fleet:
        ways = stage.ways(fleet)
        for name, way in stage.present(ways):
            with stage.trying(name):
                await _alone(way, 3)
        for streams in STREAMS:
            for number in stage.rounds(share=0.23):
                await _round(stage, ways, streams, number)
            added = stage.figures.median(f"fleet/added_ms/{streams}") or 0.0
            stage.say(f"{streams} streams: {added:.1f} ms added to the first chunk")
        for _ in stage.rounds(COLD_ROUNDS, share=0.08):
            await asyncio.sleep(REST_S)
            cold = await _alone(fleet, 1)
            stage.figures.add("fleet/added_cold_ms/1", cold - await _alone(stage.direct, 1))


async def _round(stage: Stage, ways: Mapping[str, Through], streams: int, number: int) -> None:
    direct = Burst(0.0, 0.0, [])
    for name, way in list(stage.present(ways)):
        if name == "LiteLLM" and number >= ROUNDS_OF_SLOW.get(streams, stage.plan.rounds):
            continue
        with stage.trying(name):
            if streams == 1:
                came = Burst(await _alone(way, stage.plan.jobs(ALONE)), 0.0, [])
            else:
                came = await burst(way.target, streams, PACED, PACED_CHUNKS)
            direct = came if name == "direct" else direct
            _add(stage.figures, name, streams, came, direct)


def _add(figures: Figures, name: str, streams: int, came: Burst, direct: Burst) -> None:
    figures.add(f"{name}/first_ms/{streams}", came.first_ms)
    if name != "direct":
        figures.add(f"{name}/added_ms/{streams}", came.first_ms - direct.first_ms)
    if streams == 1:
        return
    figures.add(f"{name}/chunks_per_s/{streams}", came.chunks_per_s)
    if name != "direct":
        figures.add(f"{name}/of_direct/{streams}", came.chunks_per_s / direct.chunks_per_s)
    figures.add(f"{name}/start_faults/{streams}", len(came.faults))


async def _alone(way: Through, samples: int) -> float:
    """The median milliseconds to the first chunk of streams one after the other."""
    async with connected(way.target.port, 1) as lines, asyncio.timeout(LIMIT_S):
        return median(
            [(await way.target.chat(lines[0], PACED_SHORT)).first_s * 1000 for _ in range(samples)]
        )
