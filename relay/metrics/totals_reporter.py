"""Sends what a process has counted to the fleet's totals, every few seconds and at its end."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Final, Never

from contract.errors import RelayUnavailable
from relay.metrics.totals import FleetTotals, Increase
from telemetry.families import FAMILIES
from telemetry.series import Field, Series, capped_label

_log = logging.getLogger(__name__)

_EVERY_S: Final = 5.0
_LAST_S: Final = 1.0
_AT_ONCE: Final = 256
"""Numbers in one script call, which then blocks Redis for less than a millisecond."""
_CAPPED: Final = {family.name: label for family in FAMILIES if (label := capped_label(family))}


class TotalsReporter:
    """Reports the series of one process; nothing is sent while nothing is counted."""

    def __init__(self, series: Series, totals: FleetTotals) -> None:
        """Nothing is reported yet."""
        self._series = series
        self._totals = totals
        self._reported: dict[Field, float] = {}
        self._is_failing = False

    async def run(self) -> Never:
        """Report every few seconds, until cancelled."""
        while True:
            await asyncio.sleep(_EVERY_S)
            await self.report()

    async def finish(self) -> None:
        """Report for the last time, within a second; raises nothing."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_S):
                await self.report()

    async def report(self) -> None:
        """Report what was counted since the last report; raises nothing."""
        try:
            await self._totals.flush()
            while some := dict(islice(self._increased(), _AT_ONCE)):
                increases = [
                    _increase(field, value - self._reported.get(field, 0.0))
                    for field, value in some.items()
                ]
                # Before the reply: what has none is sent again by `flush`.
                self._reported |= some
                await self._totals.add(increases)
            self._is_failing = False
        except RelayUnavailable as error:
            if not self._is_failing:
                _log.warning("the fleet's metrics wait for Redis: %s", error)
            self._is_failing = True

    def _increased(self) -> Iterator[tuple[Field, float]]:
        return (
            (field, value)
            for field, value in self._series.shared()
            if value != self._reported.get(field, 0.0)
        )


def _increase(field: Field, amount: float) -> Increase:
    label = _CAPPED.get(field[0])
    # In a field, the labels come after the name and the part of a histogram.
    return Increase(field, amount, label[0], label[1] + 2) if label else Increase(field, amount)
