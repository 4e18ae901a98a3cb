"""Reports a worker to the roster: that it is alive, its queues, and the state of its backend."""

import asyncio
import logging
import os
import socket
from contextlib import suppress
from typing import Final, Never

from contract.errors import RelayUnavailable
from contract.redis_keys import kind_of, queue_name
from contract.requests import Kind
from contract.roster import BackendReport, EndpointReport, QueueReport, WorkerReport
from contract.wire import VERSION
from relay.connection import Connection
from relay.roster import RosterStore
from relay.scripts.turn_scripts import report
from telemetry.process_metrics import installed_version
from telemetry.repeated_warnings import RepeatedWarnings
from workers.backends.dsn import BackendConfig
from workers.backends.protocols import capabilities, grants
from workers.endpoints.broadcast import merged
from workers.endpoints.probe import probe
from workers.host.container import HealthFile
from workers.settings import WorkerSettings
from workers.state import WorkerState

_log = logging.getLogger(__name__)
_repeated = RepeatedWarnings(_log)

_PROBE_PAUSE_S: Final = 1.0
"""Least time between two probes of the backend, however often its models change."""
_REPORTS_SKIPPED: Final = 4
"""Reports from one of the addresses to the next, if nothing has changed."""
_REPORTS_MISSED: Final = 2.5
"""Reports of addresses after which one without any counts as down."""
_REPORT_PAUSE_S: Final = 0.25
"""Least time between two reports."""


class RosterReporter:
    """Keeps the roster's entry of one worker up to date."""

    def __init__(
        self,
        state: WorkerState,
        connection: Connection,
        settings: WorkerSettings,
        config: BackendConfig,
    ) -> None:
        """Report the worker of `state`, whose backend has this configuration."""
        self._state = state
        self._connection = connection
        self._roster = RosterStore(connection)
        self._settings = settings
        self._config = config
        self._started_at = connection.now()
        self._version = installed_version()
        self._probing = asyncio.Lock()
        self._health_file = HealthFile(settings.health_file)
        self._told: dict[str, bool] = {}
        """Which addresses this worker has reported, and whether each works."""
        self._told_at = 0.0
        self.metrics_url: str | None = None
        """Where this worker serves its metrics; None if it serves none."""
        adapter = state.endpoints.all[0].adapter
        self._backend = BackendReport(
            name=config.name,
            type=config.type,
            endpoint=config.url,
            healthy=False,
            error="not checked yet",
            capabilities=capabilities(adapter),
            grants=tuple(sorted(grants(adapter))),
        )

    async def probe(self) -> Never:
        """Refresh every FLEET_CHECK_S, and when the models may have changed, until cancelled."""
        stale = self._state.affinity.stale
        while True:
            stale.clear()
            await self.refresh()
            await _pause(self._settings.check_s, stale, _PROBE_PAUSE_S)

    async def refresh(self) -> None:
        """Probe every endpoint, and report what was found; raises nothing."""
        # One at a time: an earlier probe that ends later would report an older state.
        async with self._probing:
            endpoints, suspect = self._state.endpoints, self._state.affinity.suspect
            await asyncio.gather(*(probe(each, self._config) for each in endpoints.all))
            self.update(suspect)
            await self.report_once()

    def update(self, suspect: str | None = None) -> None:
        """Take the last probes into the report, the model affinity and the request fitting.

        `suspect` is the model that seemed to be evicted when they began.
        """
        endpoints, worker = self._state.endpoints, self._state
        models = tuple(
            model.model_copy(update={"packs": endpoints.packs(model.name)})
            for model in merged([endpoint.models for endpoint in endpoints.all])
        )
        worker.fitting.learn(models)
        if any(endpoint.error is None for endpoint in endpoints.all):
            worker.affinity.on_models(models, suspect)
        for queue in worker.slots.capacity:
            worker.slots.capacity[queue] = endpoints.slots(queue)
        error = endpoints.error
        if error and error != self._backend.error:
            _log.warning("backend %s is not healthy: %s", self._backend.name, error)
        self._backend = self._backend.model_copy(
            update={
                "healthy": error is None,
                "error": error,
                "version": next((each.version for each in endpoints.all if each.version), None),
                "models": models,
            }
        )

    def _endpoints(self) -> tuple[EndpointReport, ...]:
        return tuple(
            EndpointReport(
                address=endpoint.address or self._config.type,
                label=endpoint.label,
                healthy=endpoint.error is None,
                error=endpoint.error,
                circuit_open_until=self._unix(endpoint.breaker.open_until),
                in_flight=endpoint.in_flight,
            )
            for endpoint in self._state.endpoints.all
        )

    def _model_circuits(self, queue: str) -> dict[str, float] | None:
        times = self._state.endpoints.models_open_until(queue)
        open_until = {model: self._unix(at) or 0.0 for model, at in sorted(times.items())}
        return open_until or None

    def _unix(self, loop_time: float | None) -> float | None:
        """A time of the loop's clock as Unix time by Redis's clock, to a tenth of a second."""
        if loop_time is None:
            return None
        wait_s = loop_time - asyncio.get_running_loop().time()
        return round(self._connection.now() + wait_s, 1)

    async def report(self) -> Never:
        """Report every FLEET_REPORT_S, and when a load begins or ends, until cancelled."""
        changed = self._state.affinity.changed
        while True:
            await _pause(self._settings.report_s, changed, _REPORT_PAUSE_S)
            changed.clear()
            await self.report_once()

    async def report_once(self) -> None:
        """Write the current report; raises nothing."""
        worker = self._state
        try:
            await self._roster.report(
                WorkerReport(
                    v=VERSION,
                    name=worker.name,
                    host=socket.gethostname(),
                    pid=os.getpid(),
                    started_at=self._started_at,
                    draining=worker.is_draining,
                    metrics_url=self.metrics_url,
                    version=self._version,
                    backends=(self._backend.model_copy(update={"endpoints": self._endpoints()}),),
                    queues=tuple(
                        QueueReport(
                            name=queue,
                            kind=_kind(queue),
                            slots=slots,
                            in_flight=worker.held.in_flight(queue),
                            loading=worker.affinity.loading(queue),
                            circuit_open_until=self._unix(worker.endpoints.open_until),
                            model_circuits=self._model_circuits(queue),
                        )
                        for queue, slots in worker.slots.capacity.items()
                    ),
                )
            )
            await self._report_addresses(works=not worker.is_draining)
        except RelayUnavailable as error:
            _repeated.warn("the report was not written to the roster: %s", error)
        else:
            self._health_file.touch("draining" if worker.is_draining else "ok")

    async def _report_addresses(self, *, works: bool) -> None:
        """Note which addresses messages of conversations may wait for; raises RelayUnavailable."""
        queue = queue_name(self._config.name, "chat")
        if queue not in self._state.slots.capacity:
            return
        endpoints = self._state.endpoints.all
        told = {each.home: works and each.works for each in endpoints}
        now = asyncio.get_running_loop().time()
        every_s = self._settings.report_s * _REPORTS_SKIPPED
        if told == self._told and now < self._told_at + every_s:
            return
        lease_s, ttl_s = self._connection.settings.lease_s, every_s * _REPORTS_MISSED
        shared = await self._connection.call(report(queue, self._state.name, lease_s, ttl_s, told))
        self._told, self._told_at = told, now
        for endpoint in endpoints:
            if endpoint.prompt_slots is not None:
                endpoint.prompt_slots.is_shared = endpoint.home in shared

    async def leave(self) -> None:
        """Remove the worker from the roster; raises nothing."""
        self._health_file.remove()
        try:
            await self._report_addresses(works=False)
            await self._roster.leave(self._state.name)
        except RelayUnavailable as error:
            _log.warning("the roster keeps this worker until its report expires: %s", error)


async def _pause(longest_s: float, event: asyncio.Event, shortest_s: float) -> None:
    """Wait for the event, for at least `shortest_s` and at most `longest_s` seconds."""
    shortest_s = min(shortest_s, longest_s)
    await asyncio.sleep(shortest_s)
    with suppress(TimeoutError):
        async with asyncio.timeout(longest_s - shortest_s):
            await event.wait()


def _kind(queue: str) -> Kind:
    kind: Kind = kind_of(queue)  # type: ignore[assignment]
    return kind
