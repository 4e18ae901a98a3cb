"""What a worker does besides its jobs: renew, reap, obey, watch, and leave in order."""

import asyncio
import logging
from contextlib import suppress
from typing import Never

from contract import redis_keys
from contract.errors import RelayUnavailable
from relay.connection import Connection
from relay.leases import Leases
from relay.maintainer import Maintainer
from relay.queue import Queue
from relay.reconciler import Reconciler
from relay.subscriber import Subscriber
from workers.settings import WorkerSettings
from workers.worker import Worker

_log = logging.getLogger(__name__)


class WorkerStalledError(RuntimeError):
    """The worker lives and does nothing; its supervisor should start it again."""


class Maintenance:
    """The loops beside the jobs; each runs until cancelled, and its crash ends the worker."""

    def __init__(
        self, worker: Worker, connection: Connection, reader: Subscriber, settings: WorkerSettings
    ) -> None:
        """Look after this worker."""
        self._worker = worker
        self._connection = connection
        self._leases = Leases(connection)
        self._queue = Queue(connection)
        self._audit = Reconciler(connection)
        self._maintainer = Maintainer(connection, worker.name)
        self._reader = reader
        self._settings = settings
        self._answered_at = asyncio.get_running_loop().time()

    @property
    def _ask_after_s(self) -> float:
        """Seconds of silence after which Redis is asked: longer than between two reports."""
        usual_s = self._settings.report_s + self._connection.settings.renew_s
        return min(usual_s, self._settings.watchdog_s / 4)

    async def renew(self) -> Never:
        """Renew all leases; stop the jobs whose lease is gone."""
        while True:
            await asyncio.sleep(self._connection.settings.renew_s)
            held: dict[str, list[tuple[str, int]]] = {}
            for id, job in self._worker.held.items():
                held.setdefault(job.claim.record.queue, []).append((id, job.claim.attempt))
            try:
                for id in await self._leases.renew(self._worker.name, held):
                    self._worker.lose(id)
                if self._connection.silent_s > self._ask_after_s:
                    await self._connection.ping()
            except RelayUnavailable as error:
                self._watch_answers(error)
            else:
                self._answered_at = asyncio.get_running_loop().time()

    def _watch_answers(self, error: RelayUnavailable) -> None:
        silent_s = asyncio.get_running_loop().time() - self._answered_at
        _log.warning("leases were not renewed for %.0f s: %s", silent_s, error)
        if silent_s > self._settings.watchdog_s:
            raise WorkerStalledError("Redis has not answered for too long") from error

    async def reap(self) -> Never:
        """While this worker is the maintainer, take jobs from silent workers, whoever they are."""
        reap_s = self._connection.settings.reap_s
        while True:
            await asyncio.sleep(reap_s)
            try:
                async with self._reader.hear(redis_keys.MAINTAINER_CHANNEL) as ear:
                    while True:
                        while await self._maintainer.tend():
                            await self._look()
                            await asyncio.sleep(reap_s)
                        await self._maintainer.vacant(ear)
            except RelayUnavailable as error:
                _log.warning("nothing was reaped: %s", error)

    async def _look(self) -> None:
        moved = await self._leases.reap() + await self._audit.look()
        if moved:
            _log.warning("%d jobs were handed over", moved)

    async def resign(self) -> None:
        """Leave what is everybody's to another worker."""
        try:
            await self._maintainer.resign()
        except RelayUnavailable as error:
            _log.warning("another worker maintains when our lease has expired: %s", error)

    async def watch(self) -> Never:
        """See to our own queues: what waits while no slot is free, and whether anything comes."""
        reap_s, watched_at = self._connection.settings.reap_s, asyncio.get_running_loop().time()
        while True:
            await asyncio.sleep(reap_s)
            try:
                await self._adopt()
                now = asyncio.get_running_loop().time()
                if now - watched_at >= self._settings.watchdog_s / 2:
                    watched_at = now
                    await self._watch_intake()
            except RelayUnavailable as error:
                _log.warning("our queues were not looked at: %s", error)

    async def _adopt(self) -> None:
        """Register other applications' messages in queues that are not consumed now."""
        for queue in self._worker.slots.capacity:
            if not self._worker.slots.is_free(queue):
                await self._worker.adoption.look(queue)

    async def _watch_intake(self) -> None:
        """Crash when tickets wait, slots are free, and none comes (celery #8030, #8091, #10205)."""
        now = asyncio.get_running_loop().time()
        slots = self._worker.slots
        free = [queue for queue in slots.capacity if slots.is_free(queue)]
        if self._worker.draining or not await self._queue.have_tickets(free):
            self._worker.last_ticket_at = now
        elif now - self._worker.last_ticket_at > self._settings.watchdog_s:
            raise WorkerStalledError(f"tickets wait in {', '.join(free)}, and none arrives here")

    async def obey(self) -> Never:
        """Stop a job the moment we are told that it has ended."""
        while True:
            try:
                async with self._reader.hear(redis_keys.worker_channel(self._worker.name)) as ear:
                    while True:
                        ear.catch_up()
                        await ear.wait(60.0)
                        while ear.heard:
                            self._worker.end(ear.heard.popleft().decode())
            except RelayUnavailable as error:
                _log.warning("orders are not heard: %s", error)
                await asyncio.sleep(1.0)

    async def drain(self, draining: asyncio.Event, hurrying: asyncio.Event) -> None:
        """Wait for the stop, stop claiming, give streams their time, hand over the rest.

        Whoever says it twice has no time to give.
        """
        await draining.wait()
        _log.warning("draining: %d jobs have %g s", len(self._worker.held), self._settings.drain_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_s):
                await hurrying.wait()
        await self._worker.hand_over_all("its worker is shutting down")
