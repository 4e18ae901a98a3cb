"""The loops of a worker beside its jobs: renew leases, reap, obey cancels, watch queues, drain."""

import asyncio
import logging
from contextlib import suppress
from time import monotonic
from typing import Final, Never

from contract import redis_keys
from contract.errors import RelayFull, RelayUnavailable
from relay.claims import Claims
from relay.compaction.compactor import Compactor
from relay.connection import Connection, DamagedKey
from relay.leases import Leases
from relay.parents import Parents
from relay.reconciler import Maintainer, Reconciler
from relay.room.answer_room import AnswerRoom
from relay.room.room_state import look
from relay.subscriber import Subscriber
from telemetry.process_metrics import ProcessMetrics
from telemetry.repeated_warnings import RepeatedWarnings
from workers.celery_pool.pool import AsyncioPool
from workers.foreign_tasks import ForeignTasks
from workers.settings import WorkerSettings
from workers.state import WorkerState
from workers.worker import Worker

_log = logging.getLogger(__name__)
_repeated = RepeatedWarnings(_log)

_FULL_S: Final = 5.0
_LOOK_S: Final = 1.0


class WorkerStalledError(RuntimeError):
    """The worker is alive and does nothing; its supervisor should restart it."""


class Maintenance:
    """The loops; each runs until cancelled, and an exception from one ends the worker."""

    def __init__(
        self,
        state: WorkerState,
        worker: Worker,
        foreign_tasks: ForeignTasks,
        *,
        connection: Connection,
        subscriber: Subscriber,
        settings: WorkerSettings,
        metrics: ProcessMetrics,
        answer_room: AnswerRoom,
    ) -> None:
        """Maintain this worker."""
        self._metrics = metrics
        self._answer_room = answer_room
        self._state = state
        self._worker = worker
        self._foreign_tasks = foreign_tasks
        self._connection = connection
        self._leases = Leases(connection)
        self._claims = Claims(connection)
        self._reconciler = Reconciler(connection)
        self._parents = Parents(connection)
        self._compactor = Compactor(connection)
        self._maintainer = Maintainer(connection, state.name)
        self._subscriber = subscriber
        self._settings = settings
        self._answered_at = asyncio.get_running_loop().time()

    @property
    def _ping_after_s(self) -> float:
        """Seconds without an answer of Redis after which it is pinged."""
        idle_s = self._settings.report_s + self._connection.settings.renew_s
        return min(idle_s, self._settings.watchdog_s / 4)

    async def renew(self) -> Never:
        """Renew all leases every third of FLEET_LEASE_S; stop the jobs whose lease is gone.

        Raises WorkerStalledError if Redis has not answered for FLEET_WATCHDOG_S.
        """
        while True:
            await asyncio.sleep(self._connection.settings.renew_s)
            try:
                attempts = self._state.held.attempts()
                for job_id in await self._leases.renew(self._state.name, attempts):
                    self._state.held.lose(job_id)
                if self._connection.silent_s > self._ping_after_s:
                    await self._connection.ping()
            except DamagedKey as error:  # an answer, too: a worker that ends would not mend it
                self._answered_at = asyncio.get_running_loop().time()
                _repeated.warn("leases were not renewed: %s", error)
            except RelayUnavailable as error:
                self._check_answers(error)
            else:
                self._answered_at = asyncio.get_running_loop().time()

    def _check_answers(self, error: RelayUnavailable) -> None:
        silent_s = asyncio.get_running_loop().time() - self._answered_at
        _log.warning("leases were not renewed for %.0f s: %s", silent_s, error)
        if silent_s > self._settings.watchdog_s:
            raise WorkerStalledError("Redis has not answered for too long") from error

    async def reap(self) -> Never:
        """While this worker is the maintainer, hand over jobs of dead workers, and repair."""
        reap_s = self._connection.settings.reap_s
        while True:
            await asyncio.sleep(reap_s)
            try:
                async with self._subscriber.subscribe(
                    redis_keys.MAINTAINER_CHANNEL
                ) as subscription:
                    while True:
                        while await self._maintainer.acquire():
                            await self._reap_once()
                            await asyncio.sleep(reap_s)
                        await self._maintainer.wait_until_free(subscription)
            except RelayUnavailable as error:
                _repeated.warn("nothing was reaped: %s", error)

    async def make_room(self) -> Never:
        """While this worker is the maintainer, remove what must go, and compact logs.

        Beside `reap`, which may have much to do, just when Redis is full.
        """
        reap_s = self._connection.settings.reap_s
        while True:
            if self._maintainer.is_held:
                try:
                    await self._reconciler.make_room()
                    await self._compactor.compact_for(reap_s)
                    continue
                except RelayUnavailable as error:
                    _repeated.warn("room is made later: %s", error)
            await asyncio.sleep(reap_s)

    async def free_children(self) -> Never:
        """While this worker is the maintainer, free jobs as soon as those that they wait for end.

        What is missed is left to `reap`.
        """
        while True:
            try:
                async with self._subscriber.subscribe(redis_keys.PARENTS) as subscription:
                    while True:
                        subscription.catch_up()
                        await subscription.wait(60.0)
                        if subscription.take() and self._maintainer.is_held:
                            await self._parents.keep()
            except RelayUnavailable as error:
                _repeated.warn("jobs that wait for others are freed later: %s", error)
                await asyncio.sleep(1.0)

    async def _reap_once(self) -> None:
        expired = 0
        with self._connection.passing_over("a lease"):
            expired = await self._leases.reap()
        restored = await self._reconciler.reconcile()
        self._metrics.on_handed_over("lease_expired", expired)
        self._metrics.on_handed_over("restored", restored)
        self._metrics.on_handed_over("fallback", self._reconciler.moved)
        if expired + restored:
            _log.warning("%d jobs were handed over", expired + restored)

    async def resign(self) -> None:
        """Let another worker become the maintainer at once; raises nothing."""
        try:
            await self._maintainer.release()
        except RelayUnavailable as error:
            _log.warning("another worker becomes the maintainer when the lease expires: %s", error)

    async def watch(self) -> Never:
        """Watch the worker's own queues: adopt foreign tasks, and check that tickets arrive.

        Notes first whose jobs the maintainer holds back, and how much room there is for answers.

        Raises WorkerStalledError if none has arrived for FLEET_WATCHDOG_S while some wait.
        """
        reap_s, watched_at = self._connection.settings.reap_s, asyncio.get_running_loop().time()
        while True:
            await asyncio.sleep(reap_s)
            try:
                with self._connection.passing_over("whom the maintainer refuses"):
                    await look(self._connection)
                await self._answer_room.look()
                await self._adopt()
                now = asyncio.get_running_loop().time()
                if now - watched_at >= self._settings.watchdog_s / 2:
                    watched_at = now
                    await self._check_tickets()
            except RelayUnavailable as error:
                _repeated.warn("the queues were not checked: %s", error)

    async def _adopt(self) -> None:
        """Register messages of other applications in queues that are not consumed now."""
        for queue in self._state.slots.capacity:
            if not self._state.slots.is_free(queue):
                await self._foreign_tasks.adopt_waiting(queue)

    async def _check_tickets(self) -> None:
        """Raise if tickets wait, slots are free and none arrives (celery #8030, #8091, #10205)."""
        now = asyncio.get_running_loop().time()
        slots = self._state.slots
        free = [queue for queue in slots.capacity if slots.is_free(queue)]
        if self._state.is_draining or not await self._claims.have_tickets(free):
            self._worker.last_ticket_at = now
        elif now - self._worker.last_ticket_at > self._settings.watchdog_s:
            raise WorkerStalledError(f"tickets wait in {', '.join(free)}, and none arrives")

    async def obey(self) -> Never:
        """Cancel a job's run as soon as Redis publishes that the job has ended."""
        while True:
            try:
                async with self._subscriber.subscribe(
                    redis_keys.worker_channel(self._state.name)
                ) as subscription:
                    while True:
                        subscription.catch_up()
                        await subscription.wait(60.0)
                        for job_id in subscription.take():
                            self._state.held.end(job_id.decode(errors="replace"))
            except RelayUnavailable as error:
                _repeated.warn("cancels are not received: %s", error)
                await asyncio.sleep(1.0)

    async def drain(self, pool: AsyncioPool) -> None:
        """At the stop, give running streams FLEET_DRAIN_S to end, then hand over the rest.

        A second signal ends the wait. If the worker retires, its jobs have all the time that they
        need; the second signal then begins FLEET_DRAIN_S, and a third ends it.
        """
        hurrying = pool.hurrying
        await pool.draining.wait()
        self._state.idle_slots.close()
        self._state.sessions.close()
        # A report at once: no message of a conversation is to wait for this worker.
        self._state.affinity.changed.set()
        if pool.is_retiring:
            _log.warning("retiring: %d jobs end first", len(self._state.held))
            await hurrying.wait()
            hurrying.clear()
        _log.warning("draining: %d jobs have %g s", len(self._state.held), self._settings.drain_s)
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(self._hurry_if_full(hurrying))
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.drain_s):
                    await hurrying.wait()
            watch.cancel()
        await self._worker.hand_over_all("its worker is shutting down")

    async def _hurry_if_full(self, hurrying: asyncio.Event) -> None:
        """End the wait once the disk of Redis has been full for _FULL_S: no job can end then."""
        full_since: float | None = None
        while full_since is None or monotonic() - full_since < _FULL_S:
            try:
                await self._connection.ping()
                full_since = None
            except RelayFull:  # only of its disk: a full memory refuses no PING
                full_since = monotonic() if full_since is None else full_since
            except RelayUnavailable:
                full_since = None
            await asyncio.sleep(_LOOK_S)
        _log.warning("the disk of Redis is full, so that no job can end: they are not waited for")
        hurrying.set()
