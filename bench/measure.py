"""The measurements: each drives one target through one scenario and returns plain numbers."""

import asyncio
import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles
from time import perf_counter

import psutil

from bench.processes import Running
from bench.targets import Fleet, Heard, Target, model, said_by
from bench.wire import Line, connect

Ending = asyncio.Future[Heard]

_LIMIT_S = 180.0
_SAMPLE_S = 0.1


@dataclass(frozen=True)
class Load:
    """Streams at once, words a stream, words a second a stream (0: as fast as can be)."""

    streams: int
    chunks: int
    rate: float = 0.0


@dataclass
class Burst:
    """What a load came to."""

    load: Load
    seconds: float
    faults: list[str] = field(default_factory=list)
    cpu_us: dict[str, float] = field(default_factory=dict)
    """Microseconds of processor time a chunk, by process."""
    stream_kb: dict[str, float] = field(default_factory=dict)
    """Kilobytes that a process grew by, a stream, at its largest."""
    resets: int = 0
    """Answers that were begun anew, because a job was taken from its worker."""
    pace: float = 0.0
    """Words a second and stream while all streams ran at once; 0 if they never did."""
    gap_ms: float = 0.0
    """Between two packets of a stream in that time: only one in a hundred gaps is longer."""

    @property
    def chunks_per_s(self) -> float:
        """Of all streams together."""
        return self.load.streams * self.load.chunks / self.seconds


class Meter:
    """What processes use between two points in time, and their largest size between."""

    def __init__(self, processes: Mapping[str, Running]) -> None:
        """Watch these, and the load generator."""
        self.processes = processes
        self.began = perf_counter()
        self._first = {name: each.usage() for name, each in processes.items()}
        self._largest = {name: usage.rss_bytes for name, usage in self._first.items()}
        self._own_cpu_s = _own_cpu_s()

    def look(self) -> None:
        """Look at sizes."""
        for name, process in self.processes.items():
            self._largest[name] = max(self._largest[name], process.usage().rss_bytes)

    def cpu_s(self) -> dict[str, float]:
        """Processor seconds since the beginning."""
        spent = {
            name: each.usage().cpu_s - self._first[name].cpu_s
            for name, each in self.processes.items()
        }
        return spent | {"load generator": _own_cpu_s() - self._own_cpu_s}

    def stream_kb(self, streams: int) -> dict[str, float]:
        """Growth since the beginning, a stream."""
        self.look()
        return {
            name: (largest - self._first[name].rss_bytes) / 1024 / streams
            for name, largest in self._largest.items()
        }


@dataclass
class Window:
    """The time in which every stream was speaking: after the last first word, before any end."""

    began: float = 0.0
    ended: float = 0.0
    cpu_s: dict[str, float] = field(default_factory=dict)

    async def watch(self, meter: Meter, lines: Sequence[Line], chats: Sequence[Ending]) -> None:
        """Look until the first stream ends, or for ever."""
        inner: Meter | None = None
        while not any(chat.done() for chat in chats):
            await asyncio.sleep(_SAMPLE_S)
            meter.look()
            if inner is None and all(line.has_word for line in lines):
                inner = Meter(meter.processes)
        if inner is not None:
            self.began, self.ended, self.cpu_s = inner.began, perf_counter(), inner.cpu_s()


async def burst(target: Target, load: Load, processes: Mapping[str, Running]) -> Burst:
    """Let all streams begin at once, and check every word of them.

    With a rate, processor time is that of the time in which all of them spoke.
    """
    name = model(load.chunks, load.rate)
    lines = await _lines(target, load.streams)
    meter, window = Meter(processes), Window()
    gc.collect()
    gc.disable()  # a pause of ours would look like one of theirs
    try:
        began = perf_counter()
        chats = [asyncio.ensure_future(target.chat(line, name)) for line in lines]
        watching = asyncio.create_task(window.watch(meter, lines, chats))
        async with asyncio.timeout(_LIMIT_S):
            heard = await asyncio.gather(*chats, return_exceptions=True)
        cpu_s = meter.cpu_s()
        await watching
    finally:
        gc.enable()
        for line in lines:
            line.close()
    good = [each for each in heard if isinstance(each, Heard)]
    result = Burst(load, max((each.answer.ended for each in good), default=began + 1) - began)
    result.cpu_us = _each(cpu_s, load.streams * load.chunks)
    if load.rate:
        _steady(result, good, window)
    result.stream_kb = meter.stream_kb(load.streams)
    result.resets = sum(each.answer.body.count(b'"type":"reset"') for each in good)
    result.faults = _faults(target, heard, said_by(name))
    return result


def _steady(result: Burst, good: Sequence[Heard], window: Window) -> None:
    """Add what is true of the time in which all streams spoke, if there was one."""
    words = sum(each.answer.words_between(window.began, window.ended) for each in good)
    gaps = [g for each in good for g in each.answer.gaps_between(window.began, window.ended)]
    if words and gaps:
        result.pace = words / (window.ended - window.began) / result.load.streams
        result.gap_ms = p99(gaps) * 1000
        result.cpu_us = _each(window.cpu_s, words)


def _each(cpu_s: Mapping[str, float], chunks: int) -> dict[str, float]:
    return {name: spent * 1e6 / chunks for name, spent in cpu_s.items()}


async def first_chunk_ms(target: Target, samples: int) -> list[float]:
    """Milliseconds until the first word, one chat after the other."""
    (line,) = await _lines(target, 1)
    name = model(4)
    await target.chat(line, name)
    took = [(await target.chat(line, name)).first_s * 1000 for _ in range(samples)]
    line.close()
    return took


async def jobs_per_s(target: Target, at_once: int, jobs: int) -> float:
    """Chats of one word, so many at once, until so many are done."""
    lines, name = await _lines(target, at_once), model(1)
    left = iter(range(jobs))

    async def work(line: Line) -> None:
        for _ in left:
            await target.chat(line, name)

    began = perf_counter()
    async with asyncio.timeout(_LIMIT_S):
        await asyncio.gather(*map(work, lines))
    took = perf_counter() - began
    for line in lines:
        line.close()
    return jobs / took


async def enqueue_ms(fleet: Fleet, samples: int) -> list[float]:
    """Milliseconds until a job is accepted, one after the other, while a worker runs them."""
    (line,) = await _lines(fleet, 1)
    request = fleet.request(model(1))
    took = []
    for _ in range(samples):
        answer = await line.ask(request)
        took.append((answer.ended - answer.began) * 1000)
    line.close()
    return took


def p50(values: Sequence[float]) -> float:
    """The median."""
    return median(values)


def p99(values: Sequence[float]) -> float:
    """Only one in a hundred is worse."""
    return quantiles(values, n=100, method="inclusive")[98] if len(values) > 1 else values[0]


async def _lines(target: Target, count: int) -> list[Line]:
    lines: list[Line] = []
    while len(lines) < count:
        some = min(100, count - len(lines))
        lines += await asyncio.gather(*(connect(target.port) for _ in range(some)))
    return lines


def _faults(target: Target, heard: Sequence[Heard | BaseException], expected: str) -> list[str]:
    faults = []
    for each in heard:
        if isinstance(each, BaseException):
            faults.append(repr(each))
        elif fault := target.fault(each, expected):
            faults.append(fault)
    return faults


def _own_cpu_s() -> float:
    times = psutil.Process().cpu_times()
    return times.user + times.system
