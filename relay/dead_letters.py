"""Dead letters: jobs that ran out of attempts. They are listed, shown, run again, or forgotten.

A retry is a new job, because a log has exactly one last word for ever. Its id is written into the
dead record before it is enqueued, so that a second retry finds the first one's job, and a shim that
dies in between is finished by whoever retries again. Each script may be run twice.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import Any, Final, NamedTuple
from uuid import uuid4

from contract import redis_keys
from contract.errors import FleetError, NewerVersion, NotDead, RelayUnavailable
from contract.events import Failed, Frame
from contract.jobs import DeadLetter, DeadPage, DeadPurged, DeadView, JobRecord, QueuePlace
from contract.requests import Kind
from contract.tenants import Tenant
from relay.connection import Connection
from relay.queue import Queue
from relay.records import Records, sees
from relay.scripts import dead_letters

_PURGED_AT_ONCE: Final = 500


class RetryChoice(NamedTuple):
    """Which dead letters: those that a tenant sees, and of these those that match."""

    seen_by: Tenant
    queue: str | None = None
    kind: Kind | None = None
    tenant: str | None = None

    def fits(self, record: JobRecord) -> bool:
        """Whether a job is one of them."""
        return (
            sees(self.seen_by, record)
            and self.queue in (None, record.queue)
            and self.kind in (None, record.kind)
            and self.tenant in (None, record.tenant)
        )


class Retried(NamedTuple):
    """What a retry led to."""

    record: JobRecord
    place: QueuePlace
    is_new: bool
    """Whether nobody had retried the dead job before."""


class DeadLetters:
    """Looks at dead letters, and does with them what is asked."""

    def __init__(self, connection: Connection) -> None:
        """Work through this connection."""
        self._connection = connection
        self._records = Records(connection)
        self._queue = Queue(connection)

    async def page(self, wanted: RetryChoice, *, limit: int, before: str | None = None) -> DeadPage:
        """The last to die first; `before` is the `next` of the page before this one.

        A page with a `next` may hold fewer than `limit`: so many others were looked at.
        Raises RelayUnavailable.
        """
        records, cursor = await self._found(wanted, limit, before)
        return DeadPage(letters=tuple(await self._letters(records)), next=cursor)

    async def show(self, record: JobRecord) -> DeadView:
        """Everything about a dead job; raises NotDead, JobNotFound, RelayUnavailable."""
        _must_be_dead(record)
        (letter,) = await self._letters([record])
        try:
            request = await self._records.request(record.id)
        except NewerVersion as error:
            return DeadView(**dict(letter), request={"kind": record.kind, "unknown": str(error)})
        said = request.model_dump(mode="json", exclude_defaults=True)
        return DeadView(**dict(letter), request={"kind": request.kind, **said})

    async def retry(self, record: JobRecord, tenant: Tenant) -> Retried:
        """Enqueue a dead job anew, for its tenant; again: the same new job.

        Raises NotDead, JobNotFound, QueueFull, RelayUnavailable.
        """
        choice = await self._connection.call(dead_letters.choose_retry(record.id, uuid4().hex))
        if choice is None:
            raise _not_dead(record)
        chosen, is_open = choice
        if not is_open:
            return await self._retried_before(record, chosen)
        new, place = await self._enqueue(record, tenant, chosen)
        await self._connection.call(dead_letters.confirm_retry(record.id, chosen, new.id))
        return Retried(new, place, is_new=record.retried_as is None)

    async def _retried_before(self, record: JobRecord, job_id: str) -> Retried:
        there = await self._records.find(job_id)
        if there is None:
            raise NotDead(
                f"job {record.id} was retried as {job_id}, which ended so long ago that its log "
                "has expired: enqueue it anew if it is still wanted"
            )
        return Retried(there, await self._queue.standing.place(there), is_new=False)

    async def _enqueue(
        self, record: JobRecord, tenant: Tenant, job_id: str
    ) -> tuple[JobRecord, QueuePlace]:
        request = await self._records.request(record.id)
        try:
            return await self._queue.enqueue(
                request, queue=record.queue, tenant=tenant, job_id=job_id, retry_of=record.id
            )
        except FleetError:
            with suppress(RelayUnavailable):
                await self._connection.call(dead_letters.withdraw_retry(record.id, job_id))
            raise

    async def purge(self, record: JobRecord) -> DeadPurged:
        """Forget a dead job for good; raises NotDead, RelayUnavailable."""
        _must_be_dead(record)
        return DeadPurged(purged=await self._connection.call(dead_letters.purge(record)))

    async def purge_all(self, wanted: RetryChoice, *, before: str | None = None) -> DeadPurged:
        """Forget dead jobs that match, a bounded number; raises RelayUnavailable."""
        records, cursor = await self._found(wanted, _PURGED_AT_ONCE, before)
        purged = await self._connection.calls([dead_letters.purge(record) for record in records])
        return DeadPurged(purged=sum(purged), next=cursor)

    async def _found(
        self, wanted: RetryChoice, limit: int, before: str | None
    ) -> tuple[list[JobRecord], str | None]:
        """Records that match, and the cursor where there may be more."""
        found: list[JobRecord] = []
        cursor = before
        rows: AsyncGenerator[tuple[str, JobRecord | None]] = self._records.newest_first(
            redis_keys.DEAD, before
        )
        async with aclosing(rows):
            async for cursor, record in rows:
                if record and wanted.fits(record):
                    found.append(record)
                if len(found) == limit:
                    return found, cursor
        left = cursor and await self._connection.command(
            "ZCOUNT", redis_keys.DEAD, "-inf", f"({cursor}"
        )
        return found, cursor if left else None

    async def _letters(self, records: Sequence[JobRecord]) -> list[DeadLetter]:
        last: list[Any] = await self._connection.pipeline(
            [("XREVRANGE", redis_keys.log(record.id), "+", "-", "COUNT", 1) for record in records]
        )
        return [
            DeadLetter(**dict(record), error=_error(entries))
            for record, entries in zip(records, last, strict=True)
        ]


def _error(entries: Sequence[Any]) -> Failed | None:
    if not entries:
        return None
    event = Frame.from_wire(entries[0][1][b"f"]).event
    return event if isinstance(event, Failed) else None


def _must_be_dead(record: JobRecord) -> None:
    if record.dead_at is None:
        raise _not_dead(record)


def _not_dead(record: JobRecord) -> NotDead:
    return NotDead(
        f"job {record.id} is no dead letter but {record.status}: only a job that ran out of "
        "attempts is; enqueue another one instead"
    )
