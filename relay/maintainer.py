"""Which worker looks after what is everybody's: expired leases, lost tickets, the ledger.

One holds a lease, renews it with each look, and says so on a channel; the others hear it and ask
Redis nothing. When it has been silent for three looks, whoever notices first takes over, which is
sooner than the lease of a job that its death left behind. Two at once do no harm: all that a
maintainer does may be done twice.
"""

import random
from typing import Final

from contract import redis_keys
from relay.connection import Argument, Connection
from relay.subscriber import Subscription

_LOOKS: Final = 3
"""Without a word until somebody else takes over, and one more at random, so that not all try."""

TEND: Final = """#!lua flags=allow-oom
-- KEYS maintainer; ARGV worker ttl_ms channel
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('PUBLISH', ARGV[3], ARGV[1])
return 1
"""
"""Take or renew the lease, and say so. Returns 1, or 0 if another worker has it."""

RESIGN: Final = """#!lua flags=allow-oom
-- KEYS maintainer; ARGV worker channel
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('PUBLISH', ARGV[2], '')
return 1
"""
"""Give the lease back, and say so."""


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
        arguments: list[Argument] = [self._worker, ttl_ms, redis_keys.MAINTAINER_CHANNEL]
        self.is_it = False
        self.is_it = bool(await self._connection.run(TEND, [redis_keys.MAINTAINER], arguments))
        return self.is_it

    async def resign(self) -> None:
        """Leave it to another one at once."""
        if self.is_it:
            self.is_it = False
            arguments = [self._worker, redis_keys.MAINTAINER_CHANNEL]
            await self._connection.run(RESIGN, [redis_keys.MAINTAINER], arguments)

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
