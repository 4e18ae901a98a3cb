"""`make bench`: the whole measurement, in one command; writes bench/RESULTS.md.

    python -m bench.run            medians of 5, about ten minutes
    python -m bench.run --quick    once, under a minute, without LiteLLM: for development

Each repetition starts a fresh fleet and measures everybody in turn, so that a busy machine is
busy for all of them.
"""

import argparse
import resource
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvloop

from bench import measure, processes
from bench.machine import load
from bench.measure import Load
from bench.processes import Running
from bench.report import write
from bench.scores import Scores
from bench.targets import Fleet, Target

RESULTS: Final = Path(__file__).with_name("RESULTS.md")
PACED: Final = Load(1000, 300, 20)
FLAT_OUT: Final = (Load(1, 1000), Load(16, 200), Load(64, 200), Load(256, 100), Load(1000, 50))
QUICK_PACED: Final = Load(1000, 200, 20)
MOST_OF_LITELLM: Final = 64
"""Streams; with more it takes minutes. 256 are measured once."""
SAMPLES: Final = 50
JOBS_AT_ONCE: Final = 64


@dataclass(frozen=True)
class Plan:
    """How much to measure."""

    repetitions: int
    paced: Load
    jobs: int
    with_peers: bool


async def measured(plan: Plan, folder: Path) -> dict[str, Scores]:
    """Measure everybody; scores by name."""
    scores: dict[str, Scores] = {}
    with ExitStack() as stack:
        direct, server = stack.enter_context(processes.backend(folder))
        peer = None
        if plan.with_peers:
            peer = stack.enter_context(processes.litellm(folder, direct.port))
        for number in range(1, plan.repetitions + 1):
            say(f"repetition {number} of {plan.repetitions}")
            await _all(scores, direct, plan, {"backend": server})
            with processes.fleet(folder, direct.port) as (fleet, own):
                await _all(scores, fleet, plan, own | {"backend": server})
                await _enqueues(scores[fleet.name], fleet)
            if peer is not None:
                await _peer(scores, peer[0], {"litellm": peer[1], "backend": server}, number)
    return scores


async def _all(
    scores: dict[str, Scores], target: Target, plan: Plan, watched: Mapping[str, Running]
) -> None:
    mine = scores.setdefault(target.name, Scores())
    # First, because it tells what a fresh process grows by a stream.
    await measure.burst(target, Load(8, 20), watched)
    paced = await measure.burst(target, plan.paced, watched)
    mine.paced.append(paced)
    say(f"  {target.name}: {paced.load.streams} paced streams, {paced.pace:.1f} words/s each")
    mine.first_ms.append(measure.p50(await measure.first_chunk_ms(target, SAMPLES)))
    for level in FLAT_OUT:
        await _flat_out(mine, target, level, watched)
    mine.jobs_per_s.append(await measure.jobs_per_s(target, JOBS_AT_ONCE, plan.jobs))


async def _flat_out(
    mine: Scores, target: Target, level: Load, watched: Mapping[str, Running]
) -> None:
    burst = await measure.burst(target, level, watched)
    mine.flat_out.setdefault(level.streams, []).append(burst)
    say(f"  {target.name}: {level.streams} streams, {burst.chunks_per_s:,.0f} chunks/s")


async def _enqueues(mine: Scores, fleet: Fleet) -> None:
    took = await measure.enqueue_ms(fleet, 4 * SAMPLES)
    mine.enqueue_p50_ms.append(measure.p50(took))
    mine.enqueue_p99_ms.append(measure.p99(took))


async def _peer(
    scores: dict[str, Scores], target: Target, watched: Mapping[str, Running], number: int
) -> None:
    mine = scores.setdefault(target.name, Scores())
    mine.first_ms.append(measure.p50(await measure.first_chunk_ms(target, SAMPLES)))
    for level in _of_a_peer(number):
        await _flat_out(mine, target, level, watched)
    mine.jobs_per_s.append(await measure.jobs_per_s(target, JOBS_AT_ONCE, 128))


def _of_a_peer(number: int) -> Iterator[Load]:
    for level in FLAT_OUT:
        if level.streams <= MOST_OF_LITELLM or (number == 1 and level.streams == 256):
            yield level


def say(text: str) -> None:
    """Progress, at once."""
    print(text, flush=True)


def main() -> None:
    """Measure, and write down what came out."""
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="once, without LiteLLM")
    parser.add_argument("--repetitions", type=int, default=5)
    given = parser.parse_args()
    plan = Plan(given.repetitions, PACED, 1000, with_peers=True)
    if given.quick:
        plan = Plan(1, QUICK_PACED, 500, with_peers=False)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory() as folder:
        load_before = load()
        scores = uvloop.run(measured(plan, Path(folder)))
    write(RESULTS, scores, plan.repetitions, load_before)
    say(f"written: {RESULTS.parent.name}/{RESULTS.name}")


if __name__ == "__main__":
    main()
