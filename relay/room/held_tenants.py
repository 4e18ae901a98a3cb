"""The tenants whose waiting jobs a worker does not claim, because Redis has no room for answers.

Who is refused (relay/room) may have as much waiting, in several queues, as fills Redis with its
answers. So these jobs wait until there is room: a claim delays them for some seconds, and passes
over them (relay/lua/queues/claim.lua). Where waiting alone makes no room, because little of what
the tenant keeps has ended, one of its jobs may run in each queue in `FLEET_REAP_S`: else it
would wait for ever, and with it what a batch needs.
"""

import asyncio
import math

from relay.connection import Connection


class HeldTenants:
    """Those of one worker, as the maintainer last said."""

    def __init__(self, connection: Connection) -> None:
        """Take what the maintainer says from this connection."""
        self._connection = connection
        self._let_at: dict[str, float] = {}
        """When a claim in a queue last took jobs of slowed tenants (seconds of the loop)."""

    def at_claim(self, queue: str) -> frozenset[str]:
        """The tenants whose jobs a claim in this queue delays."""
        held = self._connection.crowding
        if not held:
            return held
        now = asyncio.get_running_loop().time()
        if now - self._let_at.get(queue, -math.inf) < self._connection.settings.reap_s:
            return held
        self._let_at[queue] = now
        return held - self._connection.slowed
