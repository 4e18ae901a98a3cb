"""Stands in for the maintainer while no worker is live: deadlines pass, and leases expire, anyway.

The maintainer is a worker (docs/adr/0028). Jobs may wait for a worker to start, so the deadline of
one that waits in vain must end it without a worker, and a job whose worker died with all others
must wait again.
"""

import asyncio
import logging
from typing import Never

from api_shim.submission.roster_cache import RosterCache
from contract.errors import RelayUnavailable
from relay.connection import Connection
from relay.leases import Leases
from relay.reconciler import Maintainer, Reconciler

_log = logging.getLogger(__name__)


class StandIn:
    """Holds the maintainer's lease while no worker is live; a worker that starts gets it."""

    def __init__(self, connection: Connection, roster: RosterCache, process: str) -> None:
        """Compete for the lease under the name of this `process`; nothing is held yet."""
        self._roster = roster
        self._leases = Leases(connection)
        self._reconciler = Reconciler(connection)
        self._maintainer = Maintainer(connection, process)
        self._every_s = connection.settings.reap_s

    async def run(self) -> Never:
        """Check every FLEET_REAP_S, until cancelled; while a worker maintains, in one command."""
        try:
            while True:
                await asyncio.sleep(self._every_s)
                try:
                    await self.check()
                except RelayUnavailable as error:
                    _log.warning("the fleet was not maintained: %s", error)
        finally:
            await self._resign()

    async def check(self) -> None:
        """Run one pass if nobody else maintains and no worker is live; raises RelayUnavailable."""
        if not self._maintainer.is_held and await self._maintainer.is_taken():
            return
        if await self._roster.workers():
            await self._maintainer.release()
        elif await self._maintainer.acquire():
            await self._leases.reap()
            await self._reconciler.reconcile()

    async def _resign(self) -> None:
        try:
            await self._maintainer.release()
        except RelayUnavailable as error:
            _log.warning("the maintainer's lease is left to expire: %s", error)
