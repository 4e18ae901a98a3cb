"""A cache of vectors by a digest of model, options and text.

Invariant: it never fails a job. If Redis is down or slow, the cache is not used for a few seconds:
every read is a miss and nothing is written. It writes only while three tenths of Redis's memory are
free, because a full Redis would refuse jobs, and one that is nearly full removes ended ones.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Final

from contract import redis_keys
from contract.errors import RelayUnavailable
from relay.connection import Argument, Connection
from telemetry.repeated_warnings import RepeatedWarnings

_log = logging.getLogger(__name__)
_repeated = RepeatedWarnings(_log)

_AT_ONCE: Final = 128
"""Vectors per command: a few hundred kilobytes."""
_TIMEOUT_S: Final = 0.5
_PAUSE_S: Final = 5.0
_FULL: Final = 0.7
_BELOW_HIGH_WATER: Final = 0.1
"""By which the cache stops before ended jobs are removed (FLEET_MEMORY_HIGH_WATER)."""
_NUMBER_BYTES: Final = 4


class VectorCache:
    """The cached vectors of one backend."""

    def __init__(self, connection: Connection, backend: str, ttl_s: float) -> None:
        """Use this connection; a vector expires `ttl_s` seconds after it was written."""
        self._connection = connection
        self._backend = backend
        self._ttl_ms = max(1, round(ttl_s * 1000))
        self._not_before = 0.0
        self._checked_at = -_PAUSE_S
        self._is_free = True

    async def get(self, digests: Sequence[str]) -> list[bytes | None]:
        """Rows of little-endian float32, in the order of the digests; None for a miss."""
        keys = [redis_keys.vector(self._backend, digest) for digest in digests]
        if self._is_paused:
            return [None] * len(keys)
        commands = [("MGET", *some) for some in _parts(keys)]
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                answers = await self._connection.pipeline(commands)
        except (RelayUnavailable, TimeoutError) as error:
            self._pause(error)
            return [None] * len(keys)
        rows = [row for answer in answers for row in answer]
        return [self._checked(key, row) for key, row in zip(keys, rows, strict=True)]

    def _checked(self, key: str, row: bytes | None) -> bytes | None:
        """A row of whole numbers; None for one that the fleet has not written."""
        if row is None or (row and len(row) % _NUMBER_BYTES == 0):
            return row
        self._connection.pass_over(key, ValueError(f"{len(row)} bytes are no vector"))
        return None

    async def put(self, rows: Mapping[str, bytes]) -> None:
        """Store rows by their digests, if Redis has free memory."""
        if self._is_paused or not rows:
            return
        try:
            if not await self._has_free_memory():
                return
            for some in _parts(list(rows)):
                await self._connection.pipeline([self._set_command(key, rows[key]) for key in some])
        except RelayUnavailable as error:
            self._pause(error)

    def _set_command(self, digest: str, row: bytes) -> Sequence[Argument]:
        return ("SET", redis_keys.vector(self._backend, digest), row, "PX", self._ttl_ms)

    async def _has_free_memory(self) -> bool:
        """Whether enough of Redis's memory is free, as of a few seconds ago."""
        now = asyncio.get_running_loop().time()
        if now - self._checked_at >= _PAUSE_S:
            self._checked_at = now
            used, most = await self._connection.memory()
            high_water = self._connection.settings.memory_high_water
            share = min(_FULL, high_water - _BELOW_HIGH_WATER)
            self._is_free = not most or used < share * most
        return self._is_free

    @property
    def _is_paused(self) -> bool:
        return asyncio.get_running_loop().time() < self._not_before

    def _pause(self, error: Exception) -> None:
        self._not_before = asyncio.get_running_loop().time() + _PAUSE_S
        _repeated.warn(
            "the cache of vectors is not used for %g s: %s", _PAUSE_S, str(error) or "too slow"
        )


def _parts(items: Sequence[str]) -> list[Sequence[str]]:
    return [items[at : at + _AT_ONCE] for at in range(0, len(items), _AT_ONCE)]
