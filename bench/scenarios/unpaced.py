"""A backend as fast as it can be, 64 streams: tokens that arrive, all of them, in flat memory."""

import asyncio
from typing import Final

from bench.drive import burst
from bench.meter import FLEET, Meter
from bench.stage import Stage, Through
from bench.targets import model

STREAMS: Final = 64
CHUNKS: Final = {"fleet": 2000, "LiteLLM": 20}
ROUNDS: Final = 3
LOOK_S: Final = 0.1


async def measure(stage: Stage) -> None:
    """Everybody in turn, after a small burst each."""
    with stage.fleet() as fleet:
        ways = stage.ways(fleet)
        for name, way in list(stage.present(ways)):
            with stage.trying(name):
                await burst(way.target, 8, model(20), 20)
        for _ in stage.rounds(ROUNDS):
            for name, way in list(stage.present(ways)):
                with stage.trying(name):
                    await _one(stage, name, way)
    rate = stage.figures.median(f"fleet/tokens_per_s/{STREAMS}") or 0.0
    stage.say(f"{rate:,.0f} tokens/s of {STREAMS} streams")


async def _one(stage: Stage, name: str, way: Through) -> None:
    figures, chunks = stage.figures, stage.plan.jobs(CHUNKS.get(name, 2000))
    meter = Meter(way.processes)
    looking = asyncio.create_task(_look(meter))
    try:
        came = await burst(way.target, STREAMS, model(chunks), chunks)
    finally:
        looking.cancel()
    figures.add(f"{name}/tokens_per_s/{STREAMS}", came.chunks_per_s)
    figures.add(f"{name}/unpaced_faults/{STREAMS}", len(came.faults))
    if name != "fleet":
        return
    grown = meter.growth_mib()
    figures.add(f"fleet/unpaced_growth_mib/{STREAMS}", max(grown["worker"], grown["shim"]))
    for process, spent in meter.cpu_s().items():
        cost = spent * 1e6 / (STREAMS * chunks)
        figures.add(f"fleet/unpaced_us of {process}/{STREAMS}", cost)
    for process in FLEET:
        figures.add(f"fleet/unpaced_mib of {process}/{STREAMS}", max(meter.rss_mib[process]))


async def _look(meter: Meter) -> None:
    while True:
        meter.look()
        await asyncio.sleep(LOOK_S)
