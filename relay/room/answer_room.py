"""How much of Redis's memory the answers of a worker's jobs take between two looks at it.

What runs is not refused, and a burst of large answers would fill Redis within a second, long before
the maintainer can refuse their tenant or remove anything; then every tenant's new jobs are refused.
So a tenant's long answers take an eighth of what is left between two looks of a worker, and stop
below Redis's `maxmemory`. Short answers are not counted: they fit above. What is short depends on
what is left: 690 answers of 64 KiB at once fill a Redis of 64 MiB.
"""

import asyncio
import math
from collections import Counter
from contextlib import suppress
from typing import Final

from contract.errors import RelayFull
from contract.tenants import DEFAULT_TENANT
from relay.connection import Connection

SHORT_BYTES: Final = 64 * 1024
"""Of a job's log: an answer up to this needs no room, where there is enough."""
_SHORTEST_BYTES: Final = 4 * 1024
"""The same in a full Redis: what has so little gets to its end."""
_AT_ONCE: Final = 1024
"""Short answers that fit into what is left."""
_FILLED: Final = 0.95
"""The part of `maxmemory` that long answers may fill: more than the part from which on the
maintainer refuses the tenant that keeps most (room_maker.py)."""
_SHARE: Final = 1 / 8
"""Of what is left, for a tenant between two looks; a fleet has several workers."""
_WAIT_S: Final = 10.0
"""Seconds for which a job waits for room. Then another one gets its slot."""
_LOOK_S: Final = 1.0
"""Seconds until a job looks again while Redis does not answer."""


class AnswerRoom:
    """The room for the answers of one worker."""

    def __init__(self, connection: Connection) -> None:
        """There is room for all before the first `look`."""
        self._connection = connection
        self._left_bytes = math.inf
        self._taken: Counter[str] = Counter()
        self._looked = asyncio.Event()
        """Set, and replaced, with each look."""

    async def look(self) -> None:
        """Ask Redis how much is left; raises RelayUnavailable."""
        used, most = await self._connection.memory()
        self._left_bytes = max(0.0, _FILLED * most - used) if most else math.inf
        self._taken.clear()
        looked, self._looked = self._looked, asyncio.Event()
        looked.set()

    @property
    def short_bytes(self) -> float:
        """The size of a job's log up to which its answer needs no room."""
        return max(_SHORTEST_BYTES, min(SHORT_BYTES, self._left_bytes / _AT_ONCE))

    def is_spent(self, tenant: str) -> bool:
        """Whether a tenant's answers have taken their part until the next look."""
        taken = self._taken[tenant]
        others = self._taken.total() - taken
        return taken > 0 and taken >= (self._left_bytes - others) * _SHARE

    def charge(self, tenant: str, size_bytes: int) -> None:
        """Count bytes that a tenant's answer has taken."""
        # Without keys there is nobody to leave room for.
        if tenant != DEFAULT_TENANT.name:
            self._taken[tenant] += size_bytes

    async def wait(self, tenant: str) -> None:
        """Return when there is room; raises RelayFull after some seconds."""
        now = asyncio.get_running_loop().time
        until = now() + _WAIT_S
        while self.is_spent(tenant):
            if now() > until:
                raise RelayFull(
                    "Redis has no room for the rest of the answer", retry_after_s=_WAIT_S
                )
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._looked.wait()
