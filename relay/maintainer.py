"""Which worker looks after what is everybody's: expired leases, lost tickets, the ledger.

One holds a lease, renews it with each look, and says so on a channel; the others hear it and ask
Redis nothing. When it has been silent for three looks, whoever notices first takes over, which is
sooner than the lease of a job that its death left behind. Two at once do no harm: all that a
maintainer does may be done twice.
"""

import random
from typing import Final

from relay.connection import Connection
from relay.scripts import maintainer
from relay.subscriber import Subscription

_LOOKS: Final = 3
"""Without a word until somebody else takes over, and one more at random, so that not all try."""


class Maintainer:
    """One worker's claim to be it; raises RelayUnavailable."""

    def __init__(self, connection: Connection, worker: str) -> None:
        """Be nobody yet."""
        self._connection = connection
        self._worker = worker
        self.is_it = False

    async def tend(self) -> bool:
        """Take or renew the lease; whether this worker has it."""
        ttl_ms = int(_LOOKS * self._connection.settings.reap_s * 1000)
        self.is_it = False
        self.is_it = await self._connection.call(maintainer.renew(self._worker, ttl_ms))
        return self.is_it

    async def resign(self) -> None:
        """Leave it to another one at once."""
        if self.is_it:
            self.is_it = False
            await self._connection.call(maintainer.resign(self._worker))

    async def vacant(self, ear: Subscription) -> None:
        """Wait until nobody has been heard for long, or the last one has left."""
        ear.catch_up()
        looks = _LOOKS + random.random()  # noqa: S311 - jitter
        while await ear.wait(looks * self._connection.settings.reap_s):
            ear.catch_up()
            has_left = bool(ear.heard) and not ear.heard[-1]
            ear.heard.clear()
            if has_left:
                return
