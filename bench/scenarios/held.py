"""Streams that are held: gaps between chunks, and enqueues, while very many speak.

2,000 streams of 20 chunks a second through one worker and one shim, in two windows: nothing else
happens, then 500 more jobs start at once. And 1,000 streams, while jobs are enqueued.
"""

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any, Final, NamedTuple

from bench.drive import LIMIT_S, connected, faults, no_gc
from bench.figures import p50, p99
from bench.meter import Meter
from bench.processes import BACKEND
from bench.stage import Stage, Through
from bench.targets import Heard, OpenAiShaped, model, said_by
from bench.wire import Line

STREAMS: Final = 2000
MORE: Final = 500
SLOTS: Final = 3000
"""Of the backend, so that those that start find a slot."""
RATE: Final = 20
RAMP_PER_S: Final = 500
STREAM_S: Final = 12
SETTLES_S: Final = 1.5
WINDOW_S: Final = 3.0
ENDS_WITHIN_S: Final = 20.0
"""After the last window; the streams end within a second of it, if nothing holds them up."""
ENQUEUE_STREAMS: Final = 1000
SAMPLES: Final = 200
ROUNDS: Final = 3
LONG: Final = model(STREAM_S * RATE, RATE)
SHORT: Final = model(16, RATE)


class Window(NamedTuple):
    """A part of the time."""

    began: float
    ended: float


async def measure(stage: Stage) -> None:
    """Direct once, then a fresh fleet a round."""
    streams = stage.plan.jobs(STREAMS)
    slots = f"generic+http://127.0.0.1:{stage.direct.target.port}/v1?slots={SLOTS}"
    await _held(stage, "direct", stage.direct, streams)
    for _ in stage.rounds(ROUNDS):
        with stage.fleet(slots) as fleet:
            await _enqueues(stage, fleet, stage.plan.jobs(ENQUEUE_STREAMS))
            if await _held(stage, "fleet", fleet, streams):
                stage.figures.missing["further rounds"] = "streams did not end in time"
                break
    for figure in ("gap_ms", "gap_ms while jobs start"):
        gap_ms = stage.figures.median(f"fleet/{figure}/{STREAMS}") or 0.0
        stage.say(f"{streams} streams: {figure} {gap_ms:.0f}")


async def _held(stage: Stage, name: str, way: Through, streams: int) -> bool:
    """One round; whether anything was too late."""
    figures, more = stage.figures, stage.plan.jobs(MORE)
    async with connected(way.target.port, streams + more) as lines:
        with no_gc():
            chats = _ramp(way.target, lines[:streams])
            await asyncio.sleep(streams / RAMP_PER_S + SETTLES_S)
            meter, calm = Meter(way.processes), await _window()
            spent = meter.cpu_s()
            jobs = [asyncio.ensure_future(way.target.chat(line, SHORT)) for line in lines[streams:]]
            busy = await _window()
            heard = await _all(chats)
            late = await _all(jobs)
    good = [each for each in heard if isinstance(each, Heard)]
    there = [each for each in good if each.first_s + each.began < calm.began]
    figures.add(f"{name}/held_streams/{STREAMS}", len(there))
    for figure, window in (("gap_ms", calm), ("gap_ms while jobs start", busy)):
        gaps = [g for each in there for g in each.answer.gaps_between(*window)]
        gaps = gaps or [STREAM_S]
        figures.add(f"{name}/{figure}/{STREAMS}", p99(gaps) * 1000)
        figures.add(f"{name}/longest {figure}/{STREAMS}", max(gaps) * 1000)
    wrong = faults(way.target, heard, said_by(LONG)) + faults(way.target, late, said_by(SHORT))
    figures.add(f"{name}/held_faults/{STREAMS}", len(wrong))
    for fault in wrong[:1]:
        stage.say(f"{name}: {len(wrong)} streams with a fault, such as: {fault}")
    first = [each.first_s * 1000 for each in late if isinstance(each, Heard)]
    figures.add(f"{name}/first_ms while held/{MORE}", p50(first) if first else LIMIT_S * 1000)
    chunks = RATE * WINDOW_S * max(1, len(there))
    for process, seconds in spent.items() if name == "fleet" else ():
        figures.add(f"fleet/held_us of {process}/{STREAMS}", seconds * 1e6 / chunks)
    return any(isinstance(each, TimeoutError) for each in (*heard, *late))


def _ramp(target: OpenAiShaped, lines: Sequence[Line]) -> list[asyncio.Future[Heard]]:
    began = perf_counter()

    async def later(line: Line, at: float) -> Heard:
        await asyncio.sleep(at - perf_counter())
        return await target.chat(line, LONG)

    return [
        asyncio.ensure_future(later(line, began + number / RAMP_PER_S))
        for number, line in enumerate(lines)
    ]


async def _window() -> Window:
    began = perf_counter()
    await asyncio.sleep(WINDOW_S)
    return Window(began, perf_counter())


async def _all(chats: Sequence[asyncio.Future[Heard]]) -> list[Heard | BaseException]:
    """Everybody's answer; what is not there in time is a TimeoutError."""
    _, late = await asyncio.wait(chats, timeout=ENDS_WITHIN_S)
    for each in late:
        each.cancel()
    found = await asyncio.gather(*chats, return_exceptions=True)
    too_late = TimeoutError(f"no end within {ENDS_WITHIN_S:g} s")
    return [too_late if isinstance(each, asyncio.CancelledError) else each for each in found]


async def _enqueues(stage: Stage, fleet: Through, streams: int) -> None:
    async with connected(fleet.target.port, streams) as lines:
        with no_gc():
            chats = _ramp(fleet.target, lines)
            await asyncio.sleep(streams / RAMP_PER_S + SETTLES_S)
            found = await _probed(fleet, stage.plan.jobs(SAMPLES))
            heard = await _all(chats)
    for name, took_ms in found.items():
        stage.figures.add(f"{name}/enqueue_p50_ms/{ENQUEUE_STREAMS}", p50(took_ms))
        stage.figures.add(f"{name}/enqueue_p99_ms/{ENQUEUE_STREAMS}", p99(took_ms))
    wrong = faults(fleet.target, heard, said_by(LONG))
    stage.figures.add(f"fleet/held_faults/{ENQUEUE_STREAMS}", len(wrong))


async def _probed(fleet: Through, samples: int) -> Mapping[str, list[float]]:
    """Milliseconds of enqueues, measured by a process that does nothing else."""
    words = (str(fleet.target.port), BACKEND, fleet.redis_url, str(samples))
    probe = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.enqueue_probe", *words, stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(LIMIT_S):
            told, _ = await probe.communicate()
    finally:
        if probe.returncode is None:
            probe.kill()
            await probe.wait()
    found: dict[str, Any] = json.loads(told)
    return found
