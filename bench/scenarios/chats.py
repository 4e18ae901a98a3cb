"""Chats of 16 chunks, not streamed, by callers that ask again at once: rate, CPU, Redis's share."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import SecretStr

from bench.drive import answers_per_s, connected
from bench.figures import Figures
from bench.meter import FLEET, Meter
from bench.stage import HEADERS, Plan, Stage, Through
from bench.targets import PROMPT, model, said_by
from bench.wire import post
from relay.connection import Connection
from relay.settings import RelaySettings

CHUNKS: Final = 16
CALLERS: Final = (16, 64)
OTHER_CALLERS: Final = (1, 4, 256)
"""Only for the curve."""
ROUNDS_OF_OTHERS: Final = 1
JOBS: Final = {"fleet": 1000, "LiteLLM": 100}
"""Of each round; a quarter with one caller."""
JOBS_OF_FAST: Final = 3000
SCRIPTS: Final = ("evalsha", "eval", "fcall")


async def measure(stage: Stage) -> None:
    """Everybody in turn, round for round."""
    with stage.fleet() as fleet:
        ways = stage.ways(fleet)
        await _round(stage, ways, 4, warm_up=True)
        for callers in CALLERS:
            for _ in stage.rounds(share=0.4):
                await _round(stage, ways, callers)
            stage.say(f"{callers} callers: {told(stage.figures, callers)}")
        for callers in OTHER_CALLERS:
            for _ in stage.rounds(ROUNDS_OF_OTHERS):
                await _round(stage, ways, callers)


async def _round(
    stage: Stage, ways: Mapping[str, Through], callers: int, *, warm_up: bool = False
) -> None:
    for name, way in list(stage.present(ways)):
        with stage.trying(name):
            if warm_up:
                async with connected(way.target.port, callers) as lines:
                    await answers_per_s(lines, *exchange(), 5 * callers)
            else:
                await measure_way(stage.figures, name, way, callers, stage.plan)


def exchange() -> tuple[bytes, bytes]:
    """The request, and what its answer contains."""
    name = model(CHUNKS)
    body = {"model": name, "messages": [{"role": "user", "content": PROMPT}]}
    return post("/v1/chat/completions", body, HEADERS), said_by(name).strip().encode()


async def measure_way(figures: Figures, name: str, way: Through, callers: int, plan: Plan) -> None:
    """One round of one way to the backend."""
    jobs = plan.jobs(JOBS.get(name, JOBS_OF_FAST) // (4 if callers == 1 else 1))
    jobs = max(jobs, callers)
    async with connected(way.target.port, callers) as lines:
        if way.redis_url:
            await _of_the_fleet(figures, way, callers, jobs, lines)
            return
        meter = Meter(way.processes)
        figures.add(f"{name}/chats_per_s/{callers}", await answers_per_s(lines, *exchange(), jobs))
        for spent in [meter.cpu_s()] if name != "direct" else []:
            figures.add(f"{name}/cpu_ms/{callers}", spent[next(iter(way.processes))] * 1000 / jobs)


async def _of_the_fleet(
    figures: Figures, way: Through, callers: int, jobs: int, lines: Any
) -> None:
    async with Connection.open(RelaySettings(redis_url=SecretStr(way.redis_url))) as redis:
        before, meter = await _stats(redis), Meter(way.processes)
        rate = await answers_per_s(lines, *exchange(), jobs)
        cpu_s, after = meter.cpu_s(), await _stats(redis)
    figures.add(f"fleet/chats_per_s/{callers}", rate)
    figures.add(f"fleet/cpu_ms/{callers}", sum(cpu_s[name] for name in FLEET) * 1000 / jobs)
    for name, spent in cpu_s.items():
        figures.add(f"fleet/cpu_ms of {name}/{callers}", spent * 1000 / jobs)
    _redis(figures, callers, jobs, before, after)


async def _stats(redis: Connection) -> dict[str, Any]:
    stats: dict[str, Any] = await redis.command("INFO", "commandstats")
    return {name.removeprefix("cmdstat_"): each for name, each in stats.items()}


def _redis(
    figures: Figures, callers: int, jobs: int, before: Mapping[str, Any], after: Mapping[str, Any]
) -> None:
    def grown(name: str, field: str) -> float:
        return float(after[name][field]) - float(before.get(name, {}).get(field, 0))

    scripts = [name for name in SCRIPTS if name in after]
    for figure, value in {
        "redis_ms": sum(grown(name, "usec") for name in scripts) / 1000,
        "scripts": sum(grown(name, "calls") for name in scripts),
        "commands": sum(grown(name, "calls") for name in after if name != "info"),
    }.items():
        figures.add(f"fleet/{figure}/{callers}", value / jobs)


def told(figures: Figures, callers: int) -> str:
    """A line for who waits: the fleet's medians."""

    def middle(figure: str) -> float:
        return figures.median(f"fleet/{figure}/{callers}") or 0.0

    processes = ", ".join(
        f"{name} {middle(f'cpu_ms of {name}'):.2f}" for name in (*FLEET, "load generator")
    )
    return (
        f"{middle('chats_per_s'):.0f} chats/s, CPU a job {middle('cpu_ms'):.2f} ms ({processes}),"
        f" Redis {middle('redis_ms'):.3f} ms in {middle('scripts'):.1f} scripts"
        f" and {middle('commands'):.0f} commands"
    )
