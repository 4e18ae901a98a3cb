"""How fast the fleet answers now: what its totals have grown by in the last minute."""

from collections import deque
from collections.abc import Mapping
from typing import Final

from relay.metrics.totals import FleetTotals, Totals
from telemetry.series import SUM, Field

_EVERY_S: Final = 5.0
"""Processes add to the totals as often."""
_WINDOW_S: Final = 60.0


class Pace:
    """Reads the totals every few seconds, while it is asked to, and compares them."""

    def __init__(self, totals: FleetTotals) -> None:
        """Nothing is read yet."""
        self._totals = totals
        self._read: deque[tuple[float, Totals]] = deque()

    async def follow(self, now: float) -> None:
        """Read the totals, unless they were read a moment before `now` (unix seconds).

        Raises RelayUnavailable.
        """
        if self._read and now - self._read[-1][0] < _EVERY_S:
            return
        totals = await self._totals.read()
        if self._read and self._read[-1][1].since != totals.since:
            self._read.clear()
        self._read.append((now, totals))
        while now - self._read[0][0] > _WINDOW_S:
            self._read.popleft()

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens of answers a second; None until there are two readings."""
        if len(self._read) < 2:  # noqa: PLR2004 - a growth has two ends
            return None
        elapsed_s = self._read[-1][0] - self._read[0][0]
        grown = self._growth("tokens_total").items()
        return round(sum(by for field, by in grown if field[-1] == "out") / elapsed_s, 1)

    @property
    def first_token_ms(self) -> float | None:
        """The median time from an enqueue to the first output; None if nothing was answered."""
        bins: dict[float, float] = {}
        for field, by in self._growth("time_to_first_token_seconds").items():
            if field[1] != SUM and by > 0:
                bins[float(field[1])] = bins.get(float(field[1]), 0.0) + by
        return _median_ms(bins)

    def _growth(self, name: str) -> Mapping[Field, float]:
        if not self._read:
            return {}
        first, last = self._read[0][1].values, self._read[-1][1].values
        return {f: value - first.get(f, 0.0) for f, value in last.items() if f[0] == name}


def _median_ms(bins: Mapping[float, float]) -> float | None:
    """The median of a histogram, between the bounds of the bucket that it lies in."""
    half = sum(bins.values()) / 2
    below, lower = 0.0, 0.0
    for upper, count in sorted(bins.items()):
        if below + count >= half:
            share = (half - below) / count
            bound = upper if upper != float("inf") else lower
            return round(1000 * (lower + (bound - lower) * share), 1)
        below, lower = below + count, upper
    return None
