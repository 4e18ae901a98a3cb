"""Makes the fleet's indexes of jobs anew from the records of the jobs that another index has.

Jobs are found in `redis_keys.RECENT`, which has all that have a record, and in `redis_keys.LIVE`,
which has those that have not ended. If both are lost, queues still run their jobs.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from contract import redis_keys
from contract.events import LAST_WORDS
from contract.wire import number
from relay.connection import Argument, Connection, ScriptCall
from relay.scripts.loader import load

_PAGE: Final = 200
_FIELDS: Final = (
    "status", "created_at", "tenant", "queue", "deadline_at", "on_disconnect", "blocked", "dead_at",
)  # fmt: skip
_LATER_S: Final = 60.0
"""Seconds until the next look at what an index has only for that."""
_INDEXES: Final = frozenset(
    {
        redis_keys.QUEUES, redis_keys.LIVE, redis_keys.RECENT, redis_keys.DEADLINES,
        redis_keys.FOLLOWED, redis_keys.BLOCKED, redis_keys.DEAD,
    }
)  # fmt: skip


class IndexRebuild:
    """Rebuilds indexes; twice does no harm."""

    def __init__(self, connection: Connection) -> None:
        """Work through this connection."""
        self._connection = connection

    async def rebuild(self, damaged: Collection[str]) -> None:
        """Make anew those of these keys that are indexes of jobs; raises RelayUnavailable."""
        tenants = redis_keys.recent("*").partition("*")
        wanted = {
            key
            for key in damaged
            if key in _INDEXES or (key.startswith(tenants[0]) and key.endswith(tenants[2]))
        }
        if not wanted:
            return
        for source in (redis_keys.RECENT, redis_keys.LIVE):
            await self._rebuild_from(source, wanted)

    async def _rebuild_from(self, source: str, wanted: Collection[str]) -> None:
        cursor = "0"
        while True:
            words = ("ZSCAN", source, cursor, "COUNT", _PAGE)
            (reply,) = await self._connection.replies([words])
            if reply is None:
                return
            at, rows = reply
            await self._add([id.decode(errors="replace") for id, _ in rows], wanted)
            cursor = str(int(at))
            if cursor == "0":
                return

    async def _add(self, ids: Collection[str], wanted: Collection[str]) -> None:
        rows = await self._connection.replies(
            [("HMGET", redis_keys.record(id), *_FIELDS) for id in ids]
        )
        keys: list[str] = []
        args: list[Argument] = []
        for id, row in zip(ids, rows, strict=True):
            with self._connection.passing_over(redis_keys.record(id)):
                fields = dict(zip(_FIELDS, row or (), strict=False))
                for key, score, member in self._entries(id, fields):
                    if key in wanted:
                        keys.append(key)
                        args += [score, member]
        if keys:
            await self._connection.call(add(keys, args))

    def _entries(
        self, id: str, fields: Mapping[str, bytes | None]
    ) -> Iterator[tuple[str, Argument, str]]:
        """Where a job is to be, with the score there and the member."""
        text = {name: value.decode() for name, value in fields.items() if value is not None}
        if "created_at" not in text or "status" not in text:
            return
        created_at, soon = text["created_at"], f"{self._connection.now() + _LATER_S:.3f}"
        number(created_at)
        yield redis_keys.RECENT, created_at, id
        yield redis_keys.recent(text.get("tenant", "")), created_at, id
        if "dead_at" in text and text["status"] == "failed":
            yield redis_keys.DEAD, text["dead_at"], id
        if text["status"] in LAST_WORDS:
            return
        yield redis_keys.LIVE, created_at, id
        yield redis_keys.QUEUES, f"{self._connection.now():.3f}", text.get("queue", "")
        if "deadline_at" in text:
            yield redis_keys.DEADLINES, text["deadline_at"], id
        if text.get("on_disconnect", "continue") != "continue":
            yield redis_keys.FOLLOWED, soon, id
        if "blocked" in text:
            yield redis_keys.BLOCKED, soon, id


def add(indexes: Sequence[str], entries: Sequence[Argument]) -> ScriptCall[int]:
    """Add entries (score and member in turn) to indexes, one each, unless they are there."""
    return ScriptCall(load("repair/index"), indexes, entries, int)
