"""Vectors that were computed before, by what they are of: a cache that may forget at any time.

Invariant: it never fails a job. Where Redis is away, slow or nearly full, nothing is known and
nothing is kept for a while. It writes only while Redis has a fifth of its memory left, because a
full Redis would refuse jobs.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Final

from contract import redis_keys
from contract.errors import RelayUnavailable
from relay.connection import Argument, Connection

_log = logging.getLogger(__name__)

_AT_ONCE: Final = 128
"""Vectors a command: a few hundred kilobytes."""
_PATIENCE_S: Final = 0.5
_PAUSE_S: Final = 5.0
_FULL: Final = 0.8


class VectorCache:
    """The vectors of one backend; each lives `ttl_s` from when it was computed."""

    def __init__(self, connection: Connection, backend: str, ttl_s: float) -> None:
        """Work through this connection."""
        self._connection = connection
        self._backend = backend
        self._ttl_ms = max(1, round(ttl_s * 1000))
        self._not_before = 0.0
        self._looked_at = -_PAUSE_S
        self._has_memory = True

    async def get(self, digests: Sequence[str]) -> list[bytes | None]:
        """Rows of little-endian float32, in the order of the digests; None is unknown."""
        keys = [redis_keys.vector(self._backend, digest) for digest in digests]
        if self._is_paused:
            return [None] * len(keys)
        asked = [("MGET", *some) for some in _parts(keys)]
        try:
            async with asyncio.timeout(_PATIENCE_S):
                answers = await self._connection.pipeline(asked)
        except (RelayUnavailable, TimeoutError) as error:
            self._pause(error)
            return [None] * len(keys)
        return [row for answer in answers for row in answer]

    async def put(self, rows: Mapping[str, bytes]) -> None:
        """Keep rows by their digests, if there is room."""
        if self._is_paused or not rows:
            return
        try:
            if not await self._finds_memory():
                return
            for some in _parts(list(rows)):
                await self._connection.pipeline([self._kept(key, rows[key]) for key in some])
        except RelayUnavailable as error:
            self._pause(error)

    def _kept(self, digest: str, row: bytes) -> Sequence[Argument]:
        return ("SET", redis_keys.vector(self._backend, digest), row, "PX", self._ttl_ms)

    async def _finds_memory(self) -> bool:
        """Whether a fifth of Redis's memory is free, as of a few seconds ago."""
        now = asyncio.get_running_loop().time()
        if now - self._looked_at >= _PAUSE_S:
            self._looked_at = now
            told = await self._connection.command("INFO", "memory")
            most = int(told["maxmemory"])
            self._has_memory = not most or int(told["used_memory"]) < _FULL * most
        return self._has_memory

    @property
    def _is_paused(self) -> bool:
        return asyncio.get_running_loop().time() < self._not_before

    def _pause(self, error: Exception) -> None:
        self._not_before = asyncio.get_running_loop().time() + _PAUSE_S
        _log.warning("the cache of vectors rests for %g s: %s", _PAUSE_S, str(error) or "too slow")


def _parts(items: Sequence[str]) -> list[Sequence[str]]:
    return [items[at : at + _AT_ONCE] for at in range(0, len(items), _AT_ONCE)]
