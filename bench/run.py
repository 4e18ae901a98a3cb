"""`make bench`: everything in one run, in under ten minutes on two cores; writes bench/RESULTS.md.

    python -m bench.run                          all scenarios, medians of 5
    python -m bench.run --only chats starts      these; the others stay as they were
    python -m bench.run --rounds 1 --scale 0.05 --out /tmp/try    to try the benchmark itself

Each scenario measures everybody in turn, round for round, so that a busy machine is busy for all of
them. One that fails or takes too long is named in the results and the others run; the exit code is
then 1. Figures are kept in results.json beside RESULTS.md; `--report` writes the latter again.
"""

import argparse
import asyncio
import resource
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import uvloop

from bench.figures import Figures
from bench.machine import load
from bench.reporting.report import write
from bench.reporting.run_record import Record, provenance
from bench.scenarios import chats, embeds, empty, growth, held, memory, starts, unpaced
from bench.stage import Plan, Stage

Scenario = Callable[[Stage], Awaitable[None]]
SCENARIOS: Final[dict[str, tuple[Scenario, float]]] = {
    "chats": (chats.measure, 65),
    "starts": (starts.measure, 130),
    "unpaced": (unpaced.measure, 35),
    "embeds": (embeds.measure, 30),
    "held": (held.measure, 90),
    "empty": (empty.measure, 50),
    "memory": (memory.measure, 40),
    "growth": (growth.measure, 35),
}
"""Each with the seconds after which it begins no further round; starting processes comes on top."""
HERE: Final = Path(__file__).parent
LIMIT_S: Final = 200.0
"""Most that a scenario may take."""


def run(names: Sequence[str], plan: Plan, out: Path) -> bool:
    """Measure these, and write after each; whether all could be measured."""
    record = Record.read(out)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        stage = Stage(plan, Path(folder), stack)
        failures = [uvloop.run(_measured(stage, name, record, out)) for name in names]
    write(out, record)
    return not any(failures)


async def _measured(stage: Stage, name: str, record: Record, out: Path) -> bool:
    print(name, flush=True)
    stage.figures = Figures()
    measure, stage.budget_s = SCENARIOS[name]
    origin, began, why = provenance(stage.plan.rounds, load()), perf_counter(), ""
    try:
        async with asyncio.timeout(LIMIT_S):
            await measure(stage)
    except* Exception as group:  # noqa: BLE001 - what happened stands in the results
        why = _first(group)
        stage.figures.missing["what is not below"] = f"the scenario ended early: {why}"
        print(f"  {why}", flush=True)
    origin["seconds"] = round(perf_counter() - began)
    record.put(name, origin, stage.figures)
    record.save(out)
    return bool(why)


def _first(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {str(error)[:300]}".strip(": ")


def _stop(*_: Any) -> None:
    """What was started is stopped on the way out."""
    sys.exit(143)


def main() -> int:
    """Measure, and write down what came out."""
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of jobs")
    parser.add_argument("--without-peers", action="store_true")
    parser.add_argument("--out", type=Path, default=HERE, help="the folder to write to")
    parser.add_argument("--report", action="store_true", help="measure nothing, only write")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.report:
        write(given.out, Record.read(given.out))
        return 0
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    signal.signal(signal.SIGTERM, _stop)
    plan = Plan(given.rounds, not given.without_peers, given.scale)
    began = perf_counter()
    is_whole = run(given.only, plan, given.out)
    print(f"written: {given.out / 'RESULTS.md'}, {perf_counter() - began:.0f} s", flush=True)
    return 0 if is_whole else 1


if __name__ == "__main__":
    sys.exit(main())
