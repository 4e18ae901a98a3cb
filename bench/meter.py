"""What processes use while something is measured: processor time and memory."""

from collections.abc import Mapping

import psutil

from bench.processes import Running

FLEET = ("worker", "shim", "redis")
"""The processes whose CPU is a job's."""


class Meter:
    """What processes use from now on, and their size at each look."""

    def __init__(self, processes: Mapping[str, Running]) -> None:
        """Watch these, and this process, which is the load generator."""
        self.processes = processes
        self._first = {name: each.usage().cpu_s for name, each in processes.items()}
        self._own_cpu_s = _own_cpu_s()
        self.rss_mib: dict[str, list[float]] = {name: [] for name in processes}

    def look(self) -> None:
        """Note sizes."""
        for name, process in self.processes.items():
            self.rss_mib[name].append(process.usage().rss_bytes / 2**20)

    def cpu_s(self) -> dict[str, float]:
        """Processor seconds since the beginning."""
        spent = {name: p.usage().cpu_s - self._first[name] for name, p in self.processes.items()}
        return spent | {"load generator": _own_cpu_s() - self._own_cpu_s}

    def growth_mib(self) -> dict[str, float]:
        """How much larger a process was at most in the second half of the looks than in the first.

        Memory that is flat grows while buffers fill, which the first half has.
        """
        halves = {
            name: (sizes[: len(sizes) // 2], sizes[len(sizes) // 2 :])
            for name, sizes in self.rss_mib.items()
        }
        return {
            name: max(later) - max(sooner) for name, (sooner, later) in halves.items() if sooner
        }


def _own_cpu_s() -> float:
    times = psutil.Process().cpu_times()
    return times.user + times.system
