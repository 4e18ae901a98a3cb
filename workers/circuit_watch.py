"""Watches the circuits of a worker's endpoints, so that jobs wait in order while one is open.

When one changes, queues are paused or resumed and the roster hears of it. An endpoint that jobs
found gone is looked at at once, and again when its circuit has been open for long enough: the look
alone closes it. A model's circuit that has been open for long enough lets one job of it through.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final, Never

from workers.backends.dsn import BackendConfig
from workers.endpoints.endpoints import EndpointPool
from workers.endpoints.probe import look
from workers.roster_reporter import RosterReporter
from workers.slots import Slots

_log = logging.getLogger(__name__)

_SHORTEST_S: Final = 0.05
"""Between two reactions to changes."""


class CircuitWatch:
    """The circuits of one worker; `wake` sends the tickets of a queue."""

    def __init__(
        self,
        servers: EndpointPool,
        config: BackendConfig,
        slots: Slots,
        *,
        changed: asyncio.Event,
        wake: Callable[[str], None],
        presence: RosterReporter,
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
        now = asyncio.get_running_loop().time()
        due = [
            server
            for server in self._servers.all
            if (at := server.breaker.look_at) is not None and at <= now
        ]
        if due:
            await asyncio.gather(*(look(server, self._config) for server in due))
            self._presence.take_in()
        for server in self._servers.all:
            server.models_at.probe()

    def _due_s(self) -> float | None:
        """Seconds until the next look or trial; None if nothing is open."""
        now = asyncio.get_running_loop().time()
        looks = [server.breaker.look_at for server in self._servers.all]
        trials = [at for server in self._servers.all for _, _, at in server.models_at.open()]
        times = [at for at in (*looks, *trials) if at is not None]
        return max(0.0, min(times) - now) if times else None

    def _settle(self) -> None:
        """Take from the queues for which an endpoint is left, and from no other."""
        self._slots.settle()
        admitted = frozenset(queue for queue in self._slots.capacity if self._servers.admit(queue))
        for queue in (admitted - self._admitted) | self._servers.held_back:
            self._wake(queue)
        self._servers.held_back.clear()
        self._admitted = admitted

    async def _report_if_new(self) -> None:
        is_open = frozenset(self._named())
        for name in is_open - self._open:
            _log.warning("circuit of %s is open: no jobs for a while", name)
        for name in self._open - is_open:
            _log.warning("circuit of %s lets jobs through again", name)
        if is_open != self._open:
            self._open = is_open
            await self._presence.report_once()

    def _named(self) -> Iterator[str]:
        """What is open, in words."""
        for server in self._servers.all:
            address = server.address or "the backend"
            if server.breaker.open_until is not None:
                yield address
            for queue, model, _ in server.models_at.open():
                yield f"model {model} ({queue}) at {address}"
