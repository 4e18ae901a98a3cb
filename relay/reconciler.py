"""Holds the ledger of records against everything else: deadlines, queues, lists.

The record outlives what Redis may lose of a queue (a failover, a truncated AOF), so a job that is
in the ledger and in no queue is given back from it. Any worker may audit, at any time.
"""

import logging
from collections.abc import Sequence
from typing import Final

from contract import redis_keys
from contract.errors import DeadlineExceeded
from relay.connection import Connection
from relay.followers import Followers
from relay.idempotency import Idempotency
from relay.leases import Leases
from relay.records import Records

_log = logging.getLogger(__name__)

_AT_ONCE: Final = 500
_SETTLED_S: Final = 10.0
"""Seconds after which an enqueue that is only half there is not on its way any more."""


class Reconciler:
    """Looks at a part of the ledger at each `look`, and at all of it in turn."""

    def __init__(self, connection: Connection) -> None:
        """Work through this connection."""
        self._connection = connection
        self._leases = Leases(connection)
        self._records = Records(connection)
        self._audience = Followers(connection)
        self._idempotency = Idempotency(connection)
        self._cursor = "0"
        self._checked: dict[str, int] = {}
        """How far each list has been checked, counted from its oldest job."""

    async def look(self) -> int:
        """Look once. Returns how many jobs were given back; raises RelayUnavailable."""
        await self._end_what_is_too_late()
        await self._forget_what_has_expired()
        await self._audience.look()
        await self._idempotency.renew()
        return await self._restore_what_was_lost()

    async def _end_what_is_too_late(self) -> None:
        now = f"{self._connection.now():.6f}"
        passed = await self._connection.command(
            "ZRANGEBYSCORE", redis_keys.DEADLINES, "-inf", now, "LIMIT", 0, _AT_ONCE
        )
        for id in passed:
            job = await self._records.bare(id.decode())
            if job is None:
                await self._connection.command("ZREM", redis_keys.DEADLINES, id)
            else:
                error = DeadlineExceeded("its deadline passed before it was done")
                await self._leases.end(job.queue, id.decode(), error)

    async def _forget_what_has_expired(self) -> None:
        for index in (redis_keys.RECENT, redis_keys.DEAD):
            await self._forget_in(index)

    async def _forget_in(self, index: str) -> None:
        """Remove expired jobs from the oldest part of a list, and from one further part in turn.

        The oldest alone would not do: a tenant's dead letters, which are kept for a week, stand
        there and would keep everybody's expired jobs in the list.
        """
        kept = await self._forget_from(index, 0)
        if kept < _AT_ONCE:
            return
        start = self._checked.get(index, kept)
        kept = await self._forget_from(index, start)
        self._checked[index] = start + kept if kept else _AT_ONCE

    async def _forget_from(self, index: str, start: int) -> int:
        """Remove the expired jobs of one part of a list. Returns how many jobs of it remain."""
        ids = await self._connection.command("ZRANGE", index, start, start + _AT_ONCE - 1)
        keys = [redis_keys.record(id.decode()) for id in ids]
        if not keys or await self._connection.command("EXISTS", *keys) == len(keys):
            return len(keys)
        there = await self._connection.pipeline([("EXISTS", key) for key in keys])
        expired = [id for id, exists in zip(ids, there, strict=True) if not exists]
        await self._connection.command("ZREM", index, *expired)
        return len(ids) - len(expired)

    async def _restore_what_was_lost(self) -> int:
        cursor, rows = await self._connection.command(
            "ZSCAN", redis_keys.LIVE, self._cursor, "COUNT", _AT_ONCE
        )
        self._cursor = str(cursor)
        settled = self._connection.now() - _SETTLED_S
        found = await self._found([id for id, created_at in rows if created_at < settled])
        known = await self._connection.pipeline(
            [("HEXISTS", redis_keys.facts(queue), job_id) for job_id, queue in found]
        )
        lost = [job_id for (job_id, _), there in zip(found, known, strict=True) if not there]
        return sum([await self._restore(job_id) for job_id in lost])

    async def _found(self, ids: Sequence[bytes]) -> list[tuple[str, str]]:
        """Jobs with their queues: no more of a record, which may have a request of megabytes."""
        job_ids = [id.decode() for id in ids]
        queues = await self._connection.pipeline(
            [("HGET", redis_keys.record(job_id), "queue") for job_id in job_ids]
        )
        gone = [id for id, queue in zip(ids, queues, strict=True) if queue is None]
        if gone:
            await self._connection.command("ZREM", redis_keys.LIVE, *gone)
        pairs = zip(job_ids, queues, strict=True)
        return [(job_id, queue.decode()) for job_id, queue in pairs if queue is not None]

    async def _restore(self, job_id: str) -> bool:
        job = await self._records.bare(job_id)
        if job is None or job.status not in ("queued", "running"):
            return False
        _log.warning("queue %s had lost job %s", job.queue, job_id)
        if job.status == "queued":
            return await self._leases.give_back(job.queue, job_id, job.attempt, job.attempt)
        return await self._leases.hand_over(
            job.queue, job_id, job.attempt, reason="its queue lost it", counts=False
        )
