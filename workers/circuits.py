"""Watches the circuits of a worker's endpoints, so that jobs wait in order while one is open.

When one changes, queues are paused or resumed and the roster hears of it; when one has been open
for long enough, its endpoint is looked at, which decides whether a job may try it.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Never

from workers.backends.dsn import BackendConfig
from workers.backends.several import Servers
from workers.looking import look
from workers.presence import Presence
from workers.slots import Slots

_log = logging.getLogger(__name__)

_SHORTEST_S: Final = 0.05
"""Between two reactions to changes."""


class Circuits:
    """The circuits of one worker; `wake` sends the tickets of a queue."""

    def __init__(
        self,
        servers: Servers,
        config: BackendConfig,
        slots: Slots,
        *,
        changed: asyncio.Event,
        wake: Callable[[str], None],
        presence: Presence,
    ) -> None:
        """Begin with all of them closed; `changed` is set by whatever changes one."""
        self._servers = servers
        self._config = config
        self._slots = slots
        self._changed = changed
        self._wake = wake
        self._presence = presence
        self._open: frozenset[str] = frozenset()
        self._admitted: frozenset[str] = frozenset(slots.capacity)

    async def watch(self) -> Never:
        """React to changes, and look at what is due, until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._due_s()):
                    await self._changed.wait()
            self._changed.clear()
            await self._look_at_what_is_due()
            self._settle()
            await self._report_if_new()
            await asyncio.sleep(_SHORTEST_S)

    async def _look_at_what_is_due(self) -> None:
        due = [server for server in self._servers.all if server.breaker.is_due]
        if due:
            await asyncio.gather(*(look(server, self._config) for server in due))
            self._presence.take_in()

    def _due_s(self) -> float | None:
        """Seconds until the next look; None if nothing is open."""
        now = asyncio.get_running_loop().time()
        times = [
            server.breaker.open_until
            for server in self._servers.all
            if server.breaker.open_until is not None
        ]
        return max(0.0, min(times) - now) if times else None

    def _settle(self) -> None:
        """Take from the queues for which an endpoint is left, and from no other."""
        self._slots.settle()
        admitted = frozenset(queue for queue in self._slots.capacity if self._servers.admit(queue))
        for queue in admitted - self._admitted:
            self._wake(queue)
        self._admitted = admitted

    async def _report_if_new(self) -> None:
        is_open = frozenset(
            server.address for server in self._servers.all if server.breaker.open_until is not None
        )
        for address in is_open - self._open:
            _log.warning("circuit of %s is open: no jobs for a while", address or "the backend")
        for address in self._open - is_open:
            _log.warning("circuit of %s lets jobs through again", address or "the backend")
        if is_open != self._open:
            self._open = is_open
            await self._presence.report_once()
