"""Embedding requests of 8 texts, 16 callers: POST /v1/embeddings, a job each."""

from typing import Final

from bench.drive import answers_per_s, connected
from bench.meter import FLEET, Meter
from bench.stage import HEADERS, Stage, Through
from bench.wire import post

CALLERS: Final = 16
TEXTS: Final = 8
JOBS: Final = {"fleet": 600, "LiteLLM": 50}
JOBS_OF_FAST: Final = 2000


async def measure(stage: Stage) -> None:
    """Everybody in turn, round for round."""
    with stage.fleet() as fleet:
        ways = stage.ways(fleet)
        for name, way in list(stage.present(ways)):
            with stage.trying(name):
                await _one(stage, name, way, is_warm=False)
        for _ in stage.rounds():
            for name, way in list(stage.present(ways)):
                with stage.trying(name):
                    await _one(stage, name, way, is_warm=True)
    rate = stage.figures.median(f"fleet/embeds_per_s/{CALLERS}") or 0.0
    stage.say(f"{rate:.0f} requests/s of {TEXTS} texts")


async def _one(stage: Stage, name: str, way: Through, *, is_warm: bool) -> None:
    texts = [f"text {number} of a request of several" for number in range(TEXTS)]
    request = post("/v1/embeddings", {"model": "scripted-embed", "input": texts}, HEADERS)
    jobs = stage.plan.jobs(JOBS.get(name, JOBS_OF_FAST)) if is_warm else CALLERS
    sign = b'"index":%d' % (TEXTS - 1)
    async with connected(way.target.port, CALLERS) as lines:
        meter = Meter(way.processes)
        rate = await answers_per_s(lines, request, sign, jobs)
    if not is_warm:
        return
    stage.figures.add(f"{name}/embeds_per_s/{CALLERS}", rate)
    if name == "fleet":
        spent = sum(meter.cpu_s()[each] for each in FLEET)
        stage.figures.add(f"fleet/embed_cpu_ms/{CALLERS}", spent * 1000 / jobs)
