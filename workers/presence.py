"""What a worker says of itself to the roster: that it lives, and how its backend is."""

import asyncio
import logging
import os
import socket
from contextlib import suppress
from typing import Never

from contract.backend_errors import (
    BackendError,
)
from contract.errors import (
    RelayUnavailable,
)
from contract.names import kind_of, queue_name
from contract.requests import Kind
from contract.roster import BackendReport, ModelReport, QueueReport, WorkerReport
from contract.wire import VERSION
from relay.connection import Connection
from relay.roster import Roster
from workers.backends.declared import declared
from workers.backends.dsn import BackendConfig
from workers.backends.protocols import TellsSlots, capabilities
from workers.granting import grants
from workers.settings import WorkerSettings
from workers.worker import Worker

_log = logging.getLogger(__name__)

_CHECK_TIMEOUT_S = 10.0
_LOOKS_S = 1.0
"""Least time between two looks at the backend, however often its models change."""
_REPORTS_S = 0.25


class Presence:
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
        self._roster = Roster(connection)
        self._settings = settings
        self._config = config
        self._started_at = connection.now()
        self._backend = BackendReport(
            name=worker.backend.name,
            type=config.type,
            endpoint=config.url,
            healthy=False,
            error="not checked yet",
            capabilities=capabilities(worker.backend),
            grants=tuple(sorted(grants(worker.backend))),
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
        error, version, models = None, None, self._backend.models
        try:
            async with asyncio.timeout(_CHECK_TIMEOUT_S):
                version = await self._worker.backend.check()
                models = declared(await self._worker.backend.models(), self._config)
                self._worker.fitting.learn(models)
                self._worker.choosing.learn(models)
                await self._learn_slots()
        except BackendError as failure:
            error = failure.message
        except TimeoutError:
            error = f"it did not answer within {_CHECK_TIMEOUT_S:g} s"
        if error and error != self._backend.error:
            _log.warning("backend %s is not healthy: %s", self._backend.name, error)
        self._set(error, version, models)
        await self.report_once()

    async def _learn_slots(self) -> None:
        """Take the number of chats at once from a server that tells, unless it is configured."""
        backend = self._worker.backend
        queue = queue_name(backend.name, "chat")
        if isinstance(backend, TellsSlots) and self._config.slots_for("chat") is None:
            told = await backend.slots()
            if told and queue in self._worker.slots.capacity:
                self._worker.slots.capacity[queue] = told

    def _set(self, error: str | None, version: str | None, models: tuple[ModelReport, ...]) -> None:
        self._backend = self._backend.model_copy(
            update={"healthy": error is None, "error": error, "version": version, "models": models}
        )

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
                    backends=(self._backend,),
                    queues=tuple(
                        QueueReport(
                            name=queue,
                            kind=_kind(queue),
                            slots=slots,
                            in_flight=held.count(queue),
                            loading=worker.choosing.loading(queue),
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
