"""Idempotency keys of jobs that were removed before their time: they go, too.

A key lives as long as its job's record, but is looked at only half of that later (`renew` of
relay/idempotency.py), and takes a third of what a small job takes.
"""

import asyncio
from typing import Any, Final

from contract import redis_keys
from relay.connection import Argument, Connection, ScriptCall
from relay.scripts.loader import load

_AT_ONCE: Final = 200


class OrphanedKeys:
    """Walks all keys of the fleet, a few at a time."""

    def __init__(self, connection: Connection) -> None:
        """Begin at the key that is renewed next."""
        self._connection = connection
        self._at = 0

    async def drop(self, seconds: float) -> None:
        """Delete some, for about so many seconds; the next call goes on.

        Raises RelayUnavailable.
        """
        now = asyncio.get_running_loop().time
        until = now() + seconds
        while (began := now()) < until:
            looked_at, left = await self._connection.call(drop_keys(self._at, _AT_ONCE))
            self._at = self._at + left if looked_at == _AT_ONCE else 0
            if not self._at:
                return
            await asyncio.sleep((now() - began) / 2)


def drop_keys(start: int, count: int) -> ScriptCall[tuple[int, int]]:
    """Delete the keys without a job's record, of `count` from `start` on, the next to renew first.

    Returns how many were looked at, and how many of them are left.
    """
    args: list[Argument] = [start, count, redis_keys.record("*")]
    return ScriptCall(load("idempotency/drop"), [redis_keys.IDEMPOTENCY], args, _looked_at)


def _looked_at(reply: Any) -> tuple[int, int]:
    return int(reply[0]), int(reply[1])
