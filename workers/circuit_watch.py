"""Watches the circuits of a worker's endpoints, so that jobs keep their order while one is open.

A change pauses or resumes queues and is written to the roster. An endpoint that jobs could not
reach is probed at once, and again when its circuit is due: only a probe closes it. A model's
circuit that is due lets one job of that model through.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final, Never

from workers.backends.dsn import BackendConfig
from workers.endpoints.endpoints import EndpointPool
from workers.endpoints.probe import probe
from workers.roster_reporter import RosterReporter
from workers.slots import Slots

_log = logging.getLogger(__name__)

_SHORTEST_S: Final = 0.05
"""Seconds between two reactions to changes."""


class CircuitWatch:
    """The circuits of one worker."""

    def __init__(
        self,
        endpoints: EndpointPool,
        config: BackendConfig,
        slots: Slots,
        *,
        changed: asyncio.Event,
        wake: Callable[[str], None],
        reporter: RosterReporter,
    ) -> None:
        """Start with all circuits closed.

        `changed` is set whenever a circuit changes; `wake` sends the tickets of a queue.
        """
        self._endpoints = endpoints
        self._config = config
        self._slots = slots
        self._changed = changed
        self._wake = wake
        self._reporter = reporter
        self._open: frozenset[str] = frozenset()
        self._admitted: frozenset[str] = frozenset(slots.capacity)

    async def watch(self) -> Never:
        """React to changes, and probe what is due, until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._due_s()):
                    await self._changed.wait()
            self._changed.clear()
            await self._probe_due()
            self._settle()
            await self._report_if_new()
            await asyncio.sleep(_SHORTEST_S)

    async def _probe_due(self) -> None:
        now = asyncio.get_running_loop().time()
        due = [
            endpoint
            for endpoint in self._endpoints.all
            if (at := endpoint.breaker.probe_at) is not None and at <= now
        ]
        if due:
            await asyncio.gather(*(probe(endpoint, self._config) for endpoint in due))
            self._reporter.update()
        for endpoint in self._endpoints.all:
            endpoint.model_circuits.half_open_due()

    def _due_s(self) -> float | None:
        """Seconds until the next probe or trial job; None if no circuit is open."""
        now = asyncio.get_running_loop().time()
        probes = [endpoint.breaker.probe_at for endpoint in self._endpoints.all]
        trials = [
            at for endpoint in self._endpoints.all for _, _, at in endpoint.model_circuits.open()
        ]
        times = [at for at in (*probes, *trials) if at is not None]
        return max(0.0, min(times) - now) if times else None

    def _settle(self) -> None:
        """Consume the queues that an endpoint admits, and wake those that were limited."""
        self._slots.settle()
        admitted = frozenset(
            queue for queue in self._slots.capacity if self._endpoints.admit(queue)
        )
        for queue in (admitted - self._admitted) | self._endpoints.limited_queues:
            self._wake(queue)
        self._endpoints.limited_queues.clear()
        self._admitted = admitted

    async def _report_if_new(self) -> None:
        is_open = frozenset(self._named())
        for name in is_open - self._open:
            _log.warning("circuit of %s is open: it gets no jobs", name)
        for name in self._open - is_open:
            _log.warning("circuit of %s admits jobs again", name)
        if is_open != self._open:
            self._open = is_open
            await self._reporter.report_once()

    def _named(self) -> Iterator[str]:
        """Names of what is open, for the log."""
        for endpoint in self._endpoints.all:
            address = endpoint.address or "the backend"
            if endpoint.breaker.open_until is not None:
                yield address
            for queue, model, _ in endpoint.model_circuits.open():
                yield f"model {model} ({queue}) at {address}"
