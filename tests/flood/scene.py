"""A shim under a flood: its processes, its memory, and how long its other clients wait.

A case is a function that floods a `Scene` and returns what became of it. To add one: write it in a
module of this folder, give it a row in that module's `CASES`, and name the module in `__main__.py`.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from support.redis_server import RedisServer
from support.shims import ShimProcess
from support.small_disk import RedisOnASmallDisk

MIB = 2**20
WORST_S = 0.25
"""Within which /healthz answers, whatever else happens."""
_AFTER_S = 0.5
"""What a flood leaves to do is a part of it."""
_PROBE = Path(__file__).with_name("health_probe.py")
_BACKENDS = {
    "scripted": {"capabilities": ["chat", "embed", "image", "rerank"], "models": ["m"], "slots": 1}
}


@dataclass(frozen=True)
class Outcome:
    """What a flood came to."""

    said: str
    """Responses, by what they were: `431 x 8`."""
    is_kept: bool
    """Whether the shim did with it what it promises."""


@dataclass(frozen=True)
class Case:
    """One flood, and what the shim may feel of it."""

    name: str
    flood: Callable[["Scene"], Awaitable[Outcome]]
    most_mib: float
    """By how much the shim's memory may grow, at its highest."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Environment of the shim beside the usual one."""
    is_first: bool = False
    """Whether the shim must not have served anything before."""
    has_workers: bool = False
    """Whether it starts workers, which a shim knows for some time after they have ended."""
    disk_mib: int = 0
    """Size of a disk that Redis and files share, and nobody else; 0: they have that of the machine.
    """


@dataclass(frozen=True)
class Scene:
    """A shim and its Redis, for one case."""

    url: str
    redis: RedisServer
    pid: int
    folder: Path
    scale: float
    """Size of the flood: 1 is that of `make flood`."""

    @property
    def address(self) -> tuple[str, int]:
        where = urlsplit(self.url)
        return str(where.hostname), where.port or 0

    def many(self, count: int) -> int:
        """A number of things, smaller where the flood is."""
        return max(1, round(count * self.scale))


@dataclass(frozen=True)
class Row:
    """What was measured in one case."""

    case: Case
    outcome: Outcome
    growth_mib: float
    peak_mib: float
    worst_s: float
    refused: str
    """What the shim has counted as refused connections."""

    def faults(self, worst_s: float = WORST_S) -> list[str]:
        """Promises that were broken."""
        return [
            words
            for is_broken, words in (
                (not self.outcome.is_kept, "the outcome"),
                (self.growth_mib > self.case.most_mib, f"memory over {self.case.most_mib:g} MiB"),
                (self.worst_s > worst_s, f"/healthz over {worst_s * 1000:g} ms"),
            )
            if is_broken
        ]


@contextmanager
def scene(case: Case, folder: Path, scale: float = 1.0) -> Iterator[Scene]:
    """A shim as a case needs it, on a Redis of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        redis = _redis(case, folder)
        stack.callback(redis.stop)
        env = {"FLEET_KNOWN_BACKENDS": json.dumps(_BACKENDS), **case.settings}
        if isinstance(redis, RedisOnASmallDisk):
            env |= {"FLEET_REDIS_DIR": str(redis.disk), "FLEET_FILES_URL": f"{redis.disk}/files"}
        shim = ShimProcess(redis.url, folder, **env)
        stack.callback(shim.end)
        if not case.is_first:
            httpx.get(f"{shim.url}/v1/models")
            httpx.get(f"{shim.url}/openapi.json", timeout=60)
        yield Scene(shim.url, redis, shim.popen.pid, folder, scale)


def _redis(case: Case, folder: Path) -> RedisServer:
    if case.disk_mib:
        return RedisOnASmallDisk(folder, size_mib=case.disk_mib)
    return RedisServer(folder)


async def measure(case: Case, at: Scene) -> Row:
    """Run a case, and watch the shim meanwhile."""
    before = memory(at.pid, "VmRSS")
    await asyncio.to_thread(Path(f"/proc/{at.pid}/clear_refs").write_text, "5")  # VmHWM anew
    with _probing(at) as worst:
        async with asyncio.timeout(280):
            outcome = await case.flood(at)
            await asyncio.sleep(_AFTER_S)
        worst_s = worst()
    peak = memory(at.pid, "VmHWM")
    return Row(case, outcome, (peak - before) / MIB, peak / MIB, worst_s, await _refused(at))


def memory(pid: int, name: str) -> int:
    """A size in bytes, as the system counts it."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} has ended")


@contextmanager
def _probing(at: Scene) -> Iterator[Callable[[], float]]:
    """Ask /healthz meanwhile; what is yielded ends that and returns the worst, in seconds."""
    words = [sys.executable, "-S", "-E", str(_PROBE), *map(str, at.address)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as probe:
        assert probe.stdout is not None
        assert probe.stdout.readline() == b"ready\n"

        def worst() -> float:
            told, _ = probe.communicate(b"\n", timeout=150)
            worst_ms, _, failed = told.split()
            return float("inf") if int(failed) else float(worst_ms) / 1000

        try:
            yield worst
        finally:
            if probe.poll() is None:
                probe.kill()


async def _refused(at: Scene) -> str:
    async with httpx.AsyncClient() as http:
        text = (await http.get(f"{at.url}/metrics")).text
    name = "llmfleet_process_refused_connections_total"
    found = (line for line in text.splitlines() if line.startswith(name + "{"))
    return ", ".join(
        f"{line.split(chr(34))[1]} {line.rsplit(' ', 1)[1].removesuffix('.0')}" for line in found
    )


def table(rows: list[Row]) -> str:
    """All rows as text."""
    head = ("case", "growth", "peak", "/healthz", "responses", "refused connections", "")
    lines = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.case.name,
        f"{row.growth_mib:.0f} MiB",
        f"{row.peak_mib:.0f} MiB",
        f"{row.worst_s * 1000:.0f} ms",
        row.outcome.said,
        row.refused or "-",
        ", ".join(row.faults()) or "ok",
    )


def has_processes() -> bool:
    """Whether this system shows the memory of a process, and may reset its peak."""
    return os.access("/proc/self/clear_refs", os.W_OK)
