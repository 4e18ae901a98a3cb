"""Wakes the queues in which this worker has delayed jobs, each when its delay is over.

One task and one sorted list for all of them. What does not fit, and what a worker that leaves has
not woken yet, the reapers wake within FLEET_REAP_S.
"""

import asyncio
import heapq
import logging
from collections.abc import Awaitable, Callable
from typing import Final, Never

from contract.errors import RelayUnavailable

_log = logging.getLogger(__name__)

_MAX_DELAYS: Final = 10_000
"""Delays that are remembered."""
_STEP_S: Final = 0.05
"""Jobs that are due within this are woken together; never early, because Redis's clock decides."""


class DelayedWakeups:
    """Delays by their end; `wake` is `Queue.wake`."""

    def __init__(self, wake: Callable[[str], Awaitable[None]]) -> None:
        """Nothing is delayed."""
        self._wake = wake
        self._due: list[tuple[float, str]] = []
        self._added = asyncio.Event()

    def set(self, queue: str, delay_s: float) -> None:
        """Wake the queue in `delay_s` seconds."""
        if len(self._due) < _MAX_DELAYS:
            at = asyncio.get_running_loop().time() + delay_s
            heapq.heappush(self._due, ((at // _STEP_S + 1) * _STEP_S, queue))
            self._added.set()

    async def run(self) -> Never:
        """Wake queues, each at its time, until cancelled."""
        while True:
            self._added.clear()
            try:
                async with asyncio.timeout(self._next_s()):
                    await self._added.wait()
            except TimeoutError:
                for queue in self._over():
                    await self._wake_one(queue)

    async def _wake_one(self, queue: str) -> None:
        try:
            await self._wake(queue)
        except RelayUnavailable as error:
            _log.warning("delayed jobs of %s wait for a reaper: %s", queue, error)

    def _next_s(self) -> float | None:
        if not self._due:
            return None
        return max(0.0, self._due[0][0] - asyncio.get_running_loop().time())

    def _over(self) -> list[str]:
        """The queues whose time has come, each once."""
        now = asyncio.get_running_loop().time()
        over: dict[str, None] = {}
        while self._due and self._due[0][0] <= now:
            over[heapq.heappop(self._due)[1]] = None
        return list(over)
