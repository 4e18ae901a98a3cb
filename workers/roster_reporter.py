"""What a worker says of itself to the roster: that it lives, and how its backend is."""

import asyncio
import logging
import os
import socket
from contextlib import suppress
from typing import Never

from contract.errors import (
    RelayUnavailable,
)
from contract.redis_keys import kind_of
from contract.requests import Kind
from contract.roster import BackendReport, EndpointReport, QueueReport, WorkerReport
from contract.wire import VERSION
from relay.connection import Connection
from relay.roster import RosterStore
from workers.backends.dsn import BackendConfig
from workers.backends.feature_grants import grants
from workers.backends.protocols import capabilities
from workers.endpoints.broadcast import merged
from workers.endpoints.probe import look
from workers.settings import WorkerSettings
from workers.worker import Worker

_log = logging.getLogger(__name__)

_LOOKS_S = 1.0
"""Least time between two looks at the backend, however often its models change."""
_REPORTS_S = 0.25


class RosterReporter:
    """Keeps the roster's entry of one worker true."""

    def __init__(
        self,
        worker: Worker,
        connection: Connection,
        settings: WorkerSettings,
        config: BackendConfig,
    ) -> None:
        """Speak for this worker, whose backend is configured so."""
        self._worker = worker
        worker.look = self.check_once
        self._connection = connection
        self._roster = RosterStore(connection)
        self._settings = settings
        self._config = config
        self._started_at = connection.now()
        self._looking = asyncio.Lock()
        adapter = worker.servers.all[0].adapter
        self._backend = BackendReport(
            name=config.name,
            type=config.type,
            endpoint=config.url,
            healthy=False,
            error="not checked yet",
            capabilities=capabilities(adapter),
            grants=tuple(sorted(grants(adapter))),
        )

    async def check(self) -> Never:
        """Look at the backend again and again."""
        stale = self._worker.choosing.stale
        while True:
            stale.clear()
            await self.check_once()
            await _pause(self._settings.check_s, stale, _LOOKS_S)

    async def check_once(self) -> None:
        """Look at the backend: is it up, which models has it."""
        # One after the other: an earlier look that ends later would tell what was before.
        async with self._looking:
            servers = self._worker.servers
            await asyncio.gather(*(look(server, self._config) for server in servers.all))
            self.take_in()
            await self.report_once()

    def take_in(self) -> None:
        """Take what was seen of the endpoints into the report, and to those who choose by it."""
        servers, worker = self._worker.servers, self._worker
        models = tuple(
            model.model_copy(update={"packs": servers.packs(model.name)})
            for model in merged([server.models for server in servers.all])
        )
        worker.fitting.learn(models)
        if any(server.error is None for server in servers.all):
            worker.choosing.learn(models)
        for queue in worker.slots.capacity:
            worker.slots.capacity[queue] = servers.slots(queue)
        error = servers.error
        if error and error != self._backend.error:
            _log.warning("backend %s is not healthy: %s", self._backend.name, error)
        self._backend = self._backend.model_copy(
            update={
                "healthy": error is None,
                "error": error,
                "version": next((it.version for it in servers.all if it.version), None),
                "models": models,
            }
        )

    def _endpoints(self) -> tuple[EndpointReport, ...]:
        return tuple(
            EndpointReport(
                address=server.address or self._config.type,
                healthy=server.error is None,
                error=server.error,
                circuit_open_until=self._unix(server.breaker.open_until),
                in_flight=server.in_flight,
            )
            for server in self._worker.servers.all
        )

    def _model_circuits(self, queue: str) -> dict[str, float] | None:
        times = self._worker.servers.models_open_until(queue)
        told = {model: self._unix(at) or 0.0 for model, at in sorted(times.items())}
        return told or None

    def _unix(self, loop_time: float | None) -> float | None:
        """The time by Redis's clock, to a tenth of a second: no two clocks agree on more."""
        if loop_time is None:
            return None
        wait_s = loop_time - asyncio.get_running_loop().time()
        return round(self._connection.now() + wait_s, 1)

    async def report(self) -> Never:
        """Say that the worker lives, again and again."""
        news = self._worker.choosing.news
        while True:
            await _pause(self._settings.report_s, news, _REPORTS_S)
            news.clear()
            await self.report_once()

    async def report_once(self) -> None:
        """Say how things are now."""
        worker = self._worker
        held = [job.claim.record.queue for job in worker.held.values()]
        try:
            await self._roster.report(
                WorkerReport(
                    v=VERSION,
                    name=worker.name,
                    host=socket.gethostname(),
                    pid=os.getpid(),
                    started_at=self._started_at,
                    draining=worker.draining,
                    backends=(self._backend.model_copy(update={"endpoints": self._endpoints()}),),
                    queues=tuple(
                        QueueReport(
                            name=queue,
                            kind=_kind(queue),
                            slots=slots,
                            in_flight=held.count(queue),
                            loading=worker.choosing.loading(queue),
                            circuit_open_until=self._unix(worker.servers.open_until),
                            model_circuits=self._model_circuits(queue),
                        )
                        for queue, slots in worker.slots.capacity.items()
                    ),
                )
            )
        except RelayUnavailable as error:
            _log.warning("the roster was not told: %s", error)

    async def leave(self) -> None:
        """Take the worker off the roster."""
        try:
            await self._roster.leave(self._worker.name)
        except RelayUnavailable as error:
            _log.warning("the roster keeps us until our report expires: %s", error)


async def _pause(longest_s: float, event: asyncio.Event, shortest_s: float) -> None:
    """Wait for the event, within these bounds."""
    shortest_s = min(shortest_s, longest_s)
    await asyncio.sleep(shortest_s)
    with suppress(TimeoutError):
        async with asyncio.timeout(longest_s - shortest_s):
            await event.wait()


def _kind(queue: str) -> Kind:
    kind: Kind = kind_of(queue)  # type: ignore[assignment]
    return kind
