"""The list of jobs that may not start yet, of one tenant or of all.

It is read from the queues, where jobs stand by when they are due. Of one tenant all of a queue is
looked through, because others may have scheduled thousands before.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from contract import redis_keys
from contract.jobs import JobRecord, ScheduledPage
from contract.tenants import DEFAULT_TENANT, Tenant
from relay.connection import Connection
from relay.records import Records, scored, sees
from relay.scheduling.later import shown
from relay.scripts.tenant_scripts import MOST_SEEN, SEEN_AT_ONCE, ListSpan, of_tenant
from relay.turns.list_turns import list_turns

_AT_ONCE: Final = 100
"""Records that are read at once."""
_MOST_READ: Final = 5_000
_MOST_OF_A_QUEUE: Final = 500
"""A tenant's jobs in one queue that are read."""


class ScheduledJobs:
    """Reads which jobs are due later."""

    def __init__(self, connection: Connection, records: Records) -> None:
        """Read through this connection."""
        self._connection = connection
        self._records = records

    async def page(self, *, visible_to: Tenant = DEFAULT_TENANT, limit: int) -> ScheduledPage:
        """Up to `limit` jobs that may not start yet, the next first; a bounded number is read.

        Raises RelayUnavailable.
        """
        async with list_turns().turn(visible_to.name):
            return await self._page(visible_to, limit)

    async def _page(self, visible_to: Tenant, limit: int) -> ScheduledPage:
        now = self._connection.now()
        due, complete = await (
            self._due(now, limit + 1) if visible_to.admin else self._due_of(visible_to.name, now)
        )
        found: list[JobRecord] = []
        for first in range(0, len(due), _AT_ONCE):
            for stored in await self._records.for_list(due[first : first + _AT_ONCE]):
                record = stored and shown(stored, now)
                if record and record.status == "scheduled" and sees(visible_to, record):
                    found.append(record)
            if len(found) > limit:
                break
        return ScheduledPage(jobs=tuple(found[:limit]), complete=complete and len(found) <= limit)

    async def _due(self, now: float, of_each: int) -> tuple[list[str], bool]:
        """Jobs of all queues that are due after `now` (unix), the next first, and whether all."""
        queues = await self._connection.command("ZRANGE", redis_keys.QUEUES, 0, -1)
        found = await self._connection.replies(
            [
                (
                    "ZRANGEBYSCORE", redis_keys.delayed(queue.decode(errors="replace")),
                    f"({now:.3f}", "+inf", "WITHSCORES", "LIMIT", 0, of_each,
                )
                for queue in queues
            ]
        )  # fmt: skip
        rows = [scored(flat or []) for flat in found]
        return _merged(rows, complete=all(len(each) < of_each for each in rows))

    async def _due_of(self, tenant: str, now: float) -> tuple[list[str], bool]:
        """The same of one tenant, whatever others have scheduled before; 500 of each queue."""
        queues = await self._connection.command("ZRANGE", redis_keys.QUEUES, 0, -1)
        left = [redis_keys.delayed(queue.decode(errors="replace")) for queue in queues]
        found: dict[str, list[tuple[str, float]]] = {key: [] for key in left}
        for offset in range(0, MOST_SEEN, SEEN_AT_ONCE):
            if not left:
                break
            span = ListSpan.later_than(now, offset)
            calls = [of_tenant(key, tenant, span) for key in left]
            replies = await self._connection.calls_or_none(calls)
            parts = [*zip(left, replies, strict=True)]
            for key, part in parts:
                found[key] += part.rows if part else ()
            left = [key for key, part in parts if part and not part.is_last]
            left = [key for key in left if len(found[key]) < _MOST_OF_A_QUEUE]
        full = any(len(rows) >= _MOST_OF_A_QUEUE for rows in found.values())
        return _merged(found.values(), complete=not (left or full))


def _merged(
    rows: Iterable[Sequence[tuple[str, float]]], *, complete: bool
) -> tuple[list[str], bool]:
    """The ids of all queues, the next first, as many as are read, and whether these are all."""
    merged = sorted((score, job_id) for each in rows for job_id, score in each)
    complete = complete and len(merged) <= _MOST_READ
    return [job_id for _, job_id in merged[:_MOST_READ]], complete
