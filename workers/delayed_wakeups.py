"""Wakes queues in which jobs are delayed or left to another worker, each when that is over.

One task and one heap for all of them. Delays beyond the bound, and those of a worker that stops,
are left to the maintainer, which wakes queues every FLEET_REAP_S.
"""

import asyncio
import heapq
import logging
from collections.abc import Awaitable, Callable
from typing import Final, Never

from contract.errors import RelayUnavailable
from telemetry.repeated_warnings import RepeatedWarnings

_log = logging.getLogger(__name__)
_repeated = RepeatedWarnings(_log)

_MAX_DELAYS: Final = 10_000
"""Delays in the heap, at most."""
_STEP_S: Final = 0.05
"""Seconds within which due jobs are woken together; never early, because Redis's clock decides."""


class DelayedWakeups:
    """The delays of one worker, by their end."""

    def __init__(self, wake: Callable[[str], Awaitable[None]]) -> None:
        """Start without delays; `wake` is `Queue.wake`."""
        self._wake = wake
        self._due: list[tuple[float, str]] = []
        self._once_at: dict[str, float] = {}
        """When `once` wakes each queue."""
        self._added = asyncio.Event()

    def set(self, queue: str, delay_s: float) -> None:
        """Wake `queue` in `delay_s` seconds."""
        if len(self._due) < _MAX_DELAYS:
            at = asyncio.get_running_loop().time() + delay_s
            heapq.heappush(self._due, ((at // _STEP_S + 1) * _STEP_S, queue))
            self._added.set()

    def once(self, queue: str, delay_s: float) -> None:
        """Do the same, unless it is woken earlier anyway by a call of this method."""
        now = asyncio.get_running_loop().time()
        if not now < self._once_at.get(queue, 0.0) <= now + delay_s:
            self._once_at[queue] = now + delay_s
            self.set(queue, delay_s)

    async def run(self) -> Never:
        """Wake queues, each when its delay is over, until cancelled."""
        while True:
            self._added.clear()
            try:
                async with asyncio.timeout(self._next_s()):
                    await self._added.wait()
            except TimeoutError:
                for queue in self._due_queues():
                    await self._wake_one(queue)

    async def _wake_one(self, queue: str) -> None:
        try:
            await self._wake(queue)
        except RelayUnavailable as error:
            _repeated.warn("delayed jobs of %s wait for the maintainer: %s", queue, error)

    def _next_s(self) -> float | None:
        if not self._due:
            return None
        return max(0.0, self._due[0][0] - asyncio.get_running_loop().time())

    def _due_queues(self) -> list[str]:
        """Return the queues that are due, each once."""
        now = asyncio.get_running_loop().time()
        queues: dict[str, None] = {}
        while self._due and self._due[0][0] <= now:
            queues[heapq.heappop(self._due)[1]] = None
        return list(queues)
