"""What a shim does for the queues besides requests: maintains them, and sets configured windows.

The maintainer is a worker (docs/adr/0028). Jobs may wait for a worker to start, so the deadline of
one that waits in vain must end it without a worker, and a job whose worker died with all others
must wait again: a shim stands in for the maintainer while no worker is live. It makes room and
compacts logs as a worker does, or a Redis without workers would stay full (docs/adr/0064).

Every shim sets the run windows that fleet.toml or FLEET_QUEUES name when it starts, once Redis
answers. One that finds that another has set the same changes nothing, so that what an admin has
changed since then stays (docs/adr/0051).
"""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Never

from api_shim.settings import ConfiguredQueue
from api_shim.submission.roster_cache import RosterCache
from contract.errors import RelayUnavailable
from relay.compaction.compactor import Compactor
from relay.connection import Connection
from relay.leases import Leases
from relay.queue import Queue
from relay.reconciler import Maintainer, Reconciler
from relay.room.room_state import look
from relay.scheduling.pauses import QueuePauses
from telemetry.repeated_warnings import RepeatedWarnings

_log = logging.getLogger(__name__)
_repeated = RepeatedWarnings(_log)


class StandIn:
    """Holds the maintainer's lease while no worker is live; a worker that starts gets it."""

    def __init__(self, connection: Connection, roster: RosterCache, process: str) -> None:
        """Compete for the lease under the name of this `process`; nothing is held yet."""
        self._connection = connection
        self._roster = roster
        self._leases = Leases(connection)
        self._reconciler = Reconciler(connection)
        self._compactor = Compactor(connection)
        self._maintainer = Maintainer(connection, process)
        self._every_s = connection.settings.reap_s
        self._passing_over = connection.passing_over

    async def run(self) -> Never:
        """Check every FLEET_REAP_S, until cancelled; while a worker maintains, three commands."""
        try:
            await self._fit_queues()
            while True:
                await asyncio.sleep(self._every_s)
                try:
                    await self.check()
                except RelayUnavailable as error:
                    _repeated.warn("the fleet was not maintained: %s", error)
        finally:
            await self._resign()

    async def make_room(self) -> Never:
        """While this shim maintains, remove what must go, and compact logs, until cancelled.

        As a worker does, beside its checks.
        """
        while True:
            if self._maintainer.is_held:
                try:
                    await self._reconciler.make_room()
                    await self._compactor.compact_for(self._every_s)
                    continue
                except RelayUnavailable as error:
                    _repeated.warn("room is made later: %s", error)
            await asyncio.sleep(self._every_s)

    async def check(self) -> None:
        """Run one pass if nobody else maintains and no worker is live; raises RelayUnavailable.

        Notes first how much a queue may keep, and which tenants the maintainer refuses.
        """
        await self._connection.fit_queues()
        with self._passing_over("whom the maintainer refuses"):
            await look(self._connection)
        if not self._maintainer.is_held and await self._maintainer.is_taken():
            return
        if await self._roster.workers():
            await self._maintainer.release()
        elif await self._maintainer.acquire():
            with self._passing_over("a lease"):
                await self._leases.reap()
            await self._reconciler.reconcile()

    async def _fit_queues(self) -> None:
        """Before the first check: a shim that has just started takes jobs, too."""
        with suppress(RelayUnavailable):
            await self._connection.fit_queues()

    async def _resign(self) -> None:
        try:
            await self._maintainer.release()
        except RelayUnavailable as error:
            _log.warning("the maintainer's lease is left to expire: %s", error)


class ConfiguredQueues:
    """Run windows that a configuration sets."""

    def __init__(
        self, connection: Connection, queue: Queue, configured: Mapping[str, ConfiguredQueue]
    ) -> None:
        """Nothing is set yet."""
        self._connection = connection
        self._pauses = QueuePauses(connection)
        self._queue = queue
        self._configured = configured

    async def apply(self) -> None:
        """Set them, and try again every FLEET_REAP_S while Redis does not answer."""
        waiting = dict(self._configured)
        while waiting:
            name, wanted = next(iter(waiting.items()))
            try:
                await self._set(name, wanted)
            except RelayUnavailable as error:
                _repeated.warn("run windows of queue %s are not set yet: %s", name, error)
                await asyncio.sleep(self._connection.settings.reap_s)
            else:
                del waiting[name]

    async def _set(self, name: str, wanted: ConfiguredQueue) -> None:
        before = (await self._pauses.windows([name]))[name]
        paused = await self._pauses.configure(name, wanted.windows)
        after = (await self._pauses.windows([name]))[name]
        if before == after:
            return
        facts = {"queue": name, "windows": list(after)}
        _log.info("queue %s: run windows set by configuration", name, extra={"facts": facts})
        if paused is None:
            await self._queue.wake_after_pause(name)
