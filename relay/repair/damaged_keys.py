"""Sets aside shared keys that another program has overwritten, so that queues go on by themselves.

A key of another type had every script that uses it refused: one such key of a queue halted all of
its jobs until somebody looked. The process whose call has failed notes the keys of the call in
`redis_keys.SUSPECTS`; then, and once a minute, the maintainer asks for the types of these and of
all shared keys. What is of another type is renamed, kept for a week, counted, and named in the log.
What was there before is lost already; it is made anew from the records of jobs (queue_rebuild.py,
index_rebuild.py).
"""

import logging
import time
from collections.abc import AsyncGenerator, Collection, Iterable
from json import dumps
from typing import Any, Final, NamedTuple

from contract import redis_keys
from relay.connection import Argument, Connection, ScriptCall
from relay.records import Records
from relay.repair import key_types
from relay.repair.index_rebuild import IndexRebuild
from relay.repair.queue_rebuild import QueueRebuild
from relay.scheduling.pauses import QueuePauses
from relay.scripts.loader import load

_log = logging.getLogger(__name__)

_QUEUES_AT_ONCE: Final = 32
_EVERY_S: Final = 60.0
_SUSPECTS_A_PASS: Final = 64
_KEPT_S: Final = 7 * 86400
_LEASES_READ: Final = 200


class SetAside(NamedTuple):
    """A key that was set aside."""

    key: str
    at: float
    """Unix seconds."""
    found: str
    """The type that it had."""


class DamagedKeys:
    """Looks at the types of shared keys; for the maintainer."""

    def __init__(self, connection: Connection) -> None:
        """Work through this connection."""
        self._connection = connection
        self._records = Records(connection)
        self._pauses = QueuePauses(connection)
        self._queues = QueueRebuild(connection)
        self._indexes = IndexRebuild(connection)
        self._looked_at = time.monotonic()

    async def mend(self) -> list[str]:
        """Set aside what is of another type, and make it anew.

        Returns jobs that are in no list of their queue now, for the caller to put back. Raises
        RelayUnavailable.
        """
        suspects = await self._suspects()
        if not suspects and time.monotonic() - self._looked_at < _EVERY_S:
            return []
        self._looked_at = time.monotonic()
        found = [key for key in {*suspects, *await self._wrong()} if await self._set_aside(key)]
        if not found:
            return []
        await self._indexes.rebuild(found)
        nowhere: list[str] = []
        for queue in sorted({queue for key in found if (queue := key_types.queue_of(key))}):
            nowhere += await self._queues.rebuild(queue, found)
        return nowhere

    async def _suspects(self) -> Collection[str]:
        command = ("SPOP", redis_keys.SUSPECTS, _SUSPECTS_A_PASS)
        (keys,) = await self._connection.replies([command])
        if keys is None:
            return [redis_keys.SUSPECTS]
        return [key.decode(errors="replace") for key in keys]

    async def _wrong(self) -> list[str]:
        """Shared keys of another type, of all queues."""
        wrong: list[str] = []
        looked_at, first = _QUEUES_AT_ONCE, 0
        while looked_at == _QUEUES_AT_ONCE:
            looked_at, keys = await self._connection.call(look(first, _QUEUES_AT_ONCE))
            first += looked_at
            wrong += keys
        return wrong

    async def _set_aside(self, key: str) -> bool:
        kind = key_types.type_of(key)
        if kind is None:
            return False
        instead = await self._instead(key)
        found = await self._connection.call(rename(key, kind, self._connection.now(), instead))
        if not found:
            return False
        _log.error(
            "%s was a %s, which no process of the fleet writes there: it is set aside as %s for a "
            "week; %s", key, found, redis_keys.damaged(key), key_types.lost_with(key),
        )  # fmt: skip
        self._connection.observer.on_set_aside(key_types.family(key))
        return True

    async def _instead(self, key: str) -> list[str]:
        """What takes the place of a key at once, because even a moment without it would harm."""
        match key_types.family(key), key_types.queue_of(key):
            case name, str(queue) if name == redis_keys.holders("*"):
                return [text async for text in self._holders(queue)]
            case name, str(queue) if name in (redis_keys.schedule("*"), redis_keys.paused("*")):
                return await self._pauses.without(queue, key)
        return []

    async def _holders(self, queue: str) -> AsyncGenerator[str]:
        """Who holds each job of a queue, by the records of the jobs: else they would stop."""
        (ids,) = await self._connection.replies([("ZRANGE", redis_keys.leases(queue), 0, -1)])
        for at in range(0, len(ids or ()), _LEASES_READ):
            some = [id.decode(errors="replace") for id in ids[at : at + _LEASES_READ]]
            words = ("status", "attempt", "worker")
            rows = await self._connection.replies(
                [("HMGET", redis_keys.record(id), *words) for id in some]
            )
            for id, row in zip(some, rows, strict=True):
                if row and None not in row and row[0] == b"running":
                    yield id
                    yield b" ".join(row[1:]).decode(errors="replace")


async def set_aside_keys(connection: Connection) -> list[SetAside]:
    """Keys that were set aside within a week, the last one first; raises RelayUnavailable."""
    (flat,) = await connection.replies([("HGETALL", redis_keys.DAMAGED)])
    found = []
    for key, text in (flat or {}).items():
        at, _, kind = text.decode(errors="replace").partition(" ")
        with connection.passing_over(redis_keys.DAMAGED):
            found.append(SetAside(key.decode(errors="replace"), float(at), kind))
    return sorted(found, key=lambda each: -each.at)


async def left_keys(connection: Connection) -> list[str]:
    """Keys of another type that are left to an operator; raises RelayUnavailable."""
    kinds = await connection.pipeline([("TYPE", key) for key in key_types.LEFT])
    found = zip(key_types.LEFT.items(), kinds, strict=True)
    return [key for (key, wanted), kind in found if kind.decode() not in ("none", wanted)]


def look(first: int, count: int) -> ScriptCall[tuple[int, list[str]]]:
    """Keys of another type: those with one name, and those of `count` queues from `first` on."""
    kinds = {
        "shared": list(key_types.SHARED.values()),
        "queue": {make("*"): kind for make, kind in key_types.QUEUE.items()} | {"*": "list"},
        "lines": redis_keys.lines("*"),
        "line": redis_keys.line("*", "*"),
    }
    args: list[Argument] = [dumps(kinds), first, count]
    return ScriptCall(load("repair/look"), list(key_types.SHARED), args, _looked_at)


def _looked_at(reply: Any) -> tuple[int, list[str]]:
    count, *keys = reply
    return int(count), [key.decode(errors="replace") for key in keys]


def rename(key: str, kind: str, now: float, instead: Iterable[str]) -> ScriptCall[str]:
    """Set a key aside unless it is of this type; returns the type that it had, empty: this one.

    `now` is in unix seconds; `instead` takes the place of the key: a text, or fields and values.
    """
    keys = [key, redis_keys.damaged(key), redis_keys.DAMAGED]
    args: list[Argument] = [kind, _KEPT_S, f"{now:.3f}", *instead]
    return ScriptCall(load("repair/set_aside"), keys, args, _type)


def _type(reply: Any) -> str:
    return reply.decode() if reply else ""
