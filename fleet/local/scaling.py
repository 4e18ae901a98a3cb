"""Decides how many workers a backend should have, and which one may end. Pure.

Rules: enough workers for the demand at once; fewer only when the demand has been lower for a while,
so that a constant load starts and ends nothing; never more than the most, never fewer than the
least; a worker that holds a job is never chosen to end.
"""

import re
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from fleet.client.errors import CannotStart

MOST_WORKERS: Final = 64
"""Workers of one backend on this machine at most."""
_RANGE: Final = re.compile(
    r"^(?P<name>[a-z][a-z0-9_]{0,39})=(?P<least>\d{1,4})\.\.(?P<most>\d{1,4})$"
)


class ScaleRange(NamedTuple):
    """How many workers a backend may have."""

    least: int
    most: int


class RunningWorker(NamedTuple):
    """A worker process that was started here."""

    name: str
    is_busy: bool
    """Whether it holds a job."""
    is_leaving: bool = False
    """Whether it takes no more jobs, and ends after those that it holds."""


class Change(NamedTuple):
    """What to do now."""

    start: int = 0
    """Workers to start."""
    retire: tuple[str, ...] = ()
    """Workers to end; none of them is busy."""


def scale_ranges(options: Iterable[str], backends: Sequence[str]) -> dict[str, ScaleRange]:
    """The ranges of `NAME=LEAST..MOST`, by backend; raises CannotStart."""
    found: dict[str, ScaleRange] = {}
    for option in options:
        match = _RANGE.match(option)
        if match is None:
            raise CannotStart(f"--scale {option[:60]}: give NAME=LEAST..MOST, as in box=0..4")
        name, least, most = match["name"], int(match["least"]), int(match["most"])
        if name not in backends:
            known = ", ".join(backends) or "none"
            raise CannotStart(f"--scale {name}: there is no such backend; there are {known}")
        if not least <= most or not 1 <= most <= MOST_WORKERS:
            raise CannotStart(
                f"--scale {option[:60]}: LEAST must be at most MOST, and MOST from 1 to "
                f"{MOST_WORKERS}"
            )
        found[name] = ScaleRange(least, most)
    return found


class DemandWindow:
    """The demand of the last `seconds`: its largest value is what counts."""

    def __init__(self, seconds: float) -> None:
        """Nothing is known yet."""
        self._seconds = seconds
        self._values: deque[tuple[float, int]] = deque()

    def add(self, now: float, demand: int) -> int:
        """Add the demand at a time (seconds of any clock); returns the largest in the window."""
        # Values that a later and larger one covers never count again.
        while self._values and self._values[-1][1] <= demand:
            self._values.pop()
        self._values.append((now, demand))
        while len(self._values) > 1 and self._values[0][0] < now - self._seconds:
            self._values.popleft()
        return self._values[0][1]


def target_of(demand: int, elsewhere: int, bounds: ScaleRange) -> int:
    """How many workers should run here, if so many run `elsewhere` for the same backend."""
    return max(bounds.least, min(bounds.most, demand - elsewhere))


def change_to(target: int, workers: Sequence[RunningWorker], bounds: ScaleRange) -> Change:
    """How to get to so many workers, with these running, the oldest first.

    Workers that leave count towards the most, and not towards the target.
    """
    staying = [worker for worker in workers if not worker.is_leaving]
    missing = target - len(staying)
    if missing >= 0:
        return Change(start=max(0, min(missing, bounds.most - len(workers))))
    idle = [worker.name for worker in reversed(staying) if not worker.is_busy]
    return Change(retire=tuple(idle[:-missing]))
