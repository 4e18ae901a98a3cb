"""Batches: their records, the lease of the shim that drives each, and the jobs of their rows.

One shim drives a batch at a time; every step of the driver carries the token of its lease. A part
that the driver has stored counts only once `commit` has listed it, in the same script that marks
its rows as done. So a driver that loses its lease or dies between the two leaves no answer twice:
the next driver continues from the marks. Tokens are random, so that a Redis that was restored from
an older state does not issue the same token again. Each script may be run twice.

A row's answer is in its job's log until a part of the batch's output has it. Then the job is
forgotten, dead letter or not: fifty thousand of them would take memory in Redis for a day.
"""

import json
from collections.abc import Sequence
from hashlib import blake2b
from secrets import token_hex
from typing import Any, Final, NamedTuple
from uuid import uuid4

from pydantic import TypeAdapter
from pydantic_core import from_json

from contract import redis_keys
from contract.batches import (
    BATCH_ID,
    Batch,
    BatchPage,
    BatchStatus,
    Counts,
    LastStatus,
    LineError,
    NewBatch,
    StoredFile,
)
from contract.errors import BatchEnded, KeyReused, QueueFull, UnknownBatch
from contract.events import COUNTS, Usage
from contract.result import Status
from contract.tenants import Tenant
from contract.wire import encode, number
from relay.connection import Connection, DamagedKey, Hash
from relay.files import Order, ids_from, place_after, stored_name
from relay.scripts import batches, jobs
from relay.scripts.id_prefixes import id_from_prefix
from relay.turns.list_turns import list_turns
from relay.webhooks.notices import batch_notice
from telemetry.trace_context import current_trace

_JSON: Final = ("metadata", "tenant", "errors")
_COUNTS: Final = ("total", "completed", "failed")
_USED: Final = COUNTS
_OURS: Final = frozenset(
    {
        "driver",
        "issued",
        "last_part",
        "gives_up",
        "pending_completed",
        "pending_failed",
        *_COUNTS,
        *_USED,
    }
)
"""Fields that are the driver's, or that `Batch` has elsewhere."""
_line_errors: Final = TypeAdapter(tuple[LineError, ...])


def to_fields(
    new: NewBatch, tenant: Tenant, batch_id: str, *, announced: bool = False
) -> dict[str, str | bytes]:
    """The fields of a new batch's hash; the script adds times and status."""
    fields: dict[str, str | bytes] = {
        name: str(value) for name, value in new if name not in _JSON and value is not None
    }
    fields |= {"id": batch_id, "metadata": json.dumps(new.metadata), "tenant": encode(tenant)}
    if announced:
        fields["announced"] = "1"
    if (trace := current_trace()) is not None:
        fields |= {name: value for name, value in trace._asdict().items() if value is not None}
    return fields


def batch_of(fields: Hash) -> Batch:
    """Read a batch from the fields of its hash."""
    text: dict[str, Any] = {name.decode(): value.decode() for name, value in fields.items()}
    for name in _JSON:
        if name in text:
            text[name] = from_json(text[name])
    pending = {name: int(number(text.get(f"pending_{name}", "0"))) for name in _COUNTS}
    counts = {name: int(number(text.get(name, "0"))) + pending[name] for name in _COUNTS}
    used = {name: int(number(text.get(name, "0"))) for name in _USED}
    known = {name: value for name, value in text.items() if name not in _OURS}
    whole = {**known, "counts": Counts(**counts), "usage": Usage(**used)}
    return Batch.model_validate(whole, extra="ignore")


def line_errors_json(errors: Sequence[LineError]) -> bytes:
    """Errors of an input file as JSON for the hash; empty if there are none."""
    return _line_errors.dump_json(tuple(errors)) if errors else b""


_status: TypeAdapter[BatchStatus] = TypeAdapter(BatchStatus)
_ENDED_S = 30 * 86400
"""Seconds that the record of a batch is kept after its end."""
_MOST_ENDED: Final = 10_000
"""Of a tenant: a record has up to 9 KB of metadata, and who creates and cancels makes many."""
_RETRY_AFTER_S = 60.0
_FORGOTTEN_AT_ONCE: Final = 250
_SPARE_S = 86400
"""Seconds after a batch's window for which its input and parts are held from deletion."""


class BatchLease(NamedTuple):
    """A driver's lease on a batch."""

    batch: Batch
    token: str
    issued: int
    """Rows before this one may have been enqueued by an earlier driver."""
    gives_up: bool
    """Whether an earlier driver found that the window had ended."""

    @property
    def driver(self) -> batches.DriverToken:
        """The arguments that all scripts of a driver need."""
        return batches.DriverToken(self.batch.id, self.batch.tenant.name, self.token)


class BatchPulse(NamedTuple):
    """What a renewal of the lease returns."""

    status: BatchStatus
    now: float
    sharing: int
    """Number of the tenant's batches that are driven now, with this one."""


class BatchPart(NamedTuple):
    """Answers that were written to the storage under one name, for output and errors."""

    name: str
    rows: Sequence[int]
    completed: int
    failed: int
    usage: Usage


class BatchStore:
    """Records and leases of batches; all methods raise RelayUnavailable."""

    def __init__(self, connection: Connection) -> None:
        """Use this connection."""
        self._connection = connection

    async def create(
        self,
        new: NewBatch,
        tenant: Tenant,
        *,
        most: int,
        key: str | None = None,
        announced: bool = False,
    ) -> Batch:
        """Create a batch; with an idempotency `key` that has a batch, return that one.

        `announced`: webhooks are told of its end.

        Raises QueueFull if `most` of the tenant's batches have not ended, KeyReused if the key's
        batch has other fields; RelayUnavailable.
        """
        batch_id = f"batch_{_digest(tenant.name, key) if key else uuid4().hex}"
        fields = await self._connection.call(
            batches.create(
                batch_id,
                tenant.name,
                to_fields(new, tenant, batch_id, announced=announced),
                window_s=new.window_s,
                spare_s=_SPARE_S,
                parts_name=parts_name(batch_id),
                input_name=stored_name(new.input_file_id),
                limit=most,
                kept=_MOST_ENDED,
                not_before=new.not_before,
            )
        )
        if not fields:
            raise _too_many(tenant, most)
        batch = self._demanded(batch_id, fields)
        if any(getattr(batch, name) != value for name, value in new):
            raise KeyReused(
                f"the Idempotency-Key belongs to another batch, {batch.id}: send that request "
                "again, or this one with a new key"
            )
        return batch

    async def get_for_tenant(self, batch_id: str, tenant: Tenant) -> Batch:
        """The record of a batch that this tenant may see: its own; an admin sees all.

        `batch_id` may be the prefix of an id, if only one of the tenant's own matches. Raises
        UnknownBatch, with the same message for another tenant's batch; AmbiguousId;
        RelayUnavailable.
        """
        if not BATCH_ID.match(batch_id):
            index = redis_keys.batches(tenant.name)
            batch_id = (
                await id_from_prefix(self._connection, index, batch_id, redis_keys.batch)
                or batch_id
            )
        (batch,) = await self._found([batch_id])
        if batch is None or not (tenant.admin or batch.tenant.name == tenant.name):
            raise no_batch(batch_id)
        return batch

    async def page(
        self, tenant: Tenant, *, limit: int, after: str | None = None, order: Order = "desc"
    ) -> BatchPage:
        """The tenant's own batches by creation; `after` is the last id of the page before.

        Raises UnknownBatch if that is not in the list; RelayUnavailable.
        """
        index = redis_keys.batches(tenant.name)
        start = await place_after(self._connection, index, after, order)
        if start is None:
            raise no_batch(after or "")
        async with list_turns().turn(tenant.name):
            ids = await ids_from(self._connection, index, start, limit + 1, order)
            found = await self._found(ids[:limit])
        return BatchPage(
            batches=tuple(batch for batch in found if batch), has_more=len(ids) > limit
        )

    async def delete(self, batch: Batch) -> None:
        """Delete the record of a batch that has ended; its files are deleted apart.

        Raises RelayUnavailable.
        """
        index = redis_keys.batches(batch.tenant.name)
        await self._connection.command("ZREM", index, batch.id)
        await self._connection.command("DEL", redis_keys.batch(batch.id))

    async def _found(self, ids: Sequence[str]) -> list[Batch | None]:
        answers = await self._fields(ids)
        return [self._read(id, fields) for id, fields in zip(ids, answers, strict=True)]

    async def _fields(self, ids: Sequence[str]) -> list[Hash | None]:
        """The fields of records, empty for one that is gone; None for another type of key."""
        return await self._connection.replies([("HGETALL", redis_keys.batch(id)) for id in ids])

    def _read(self, batch_id: str, fields: Hash | None) -> Batch | None:
        if fields is not None and b"id" in fields:
            with self._connection.passing_over(redis_keys.batch(batch_id)):
                return batch_of(fields)
        return None

    def _demanded(self, batch_id: str, fields: Hash) -> Batch:
        if (found := self._read(batch_id, fields)) is None:
            raise DamagedKey("the record of this batch is damaged: the log names it")
        return found

    async def cancel(self, batch: Batch) -> Batch:
        """Cancel a batch; may be repeated.

        Raises BatchEnded if it ended otherwise, UnknownBatch if it was deleted meanwhile;
        RelayUnavailable.
        """
        changed, fields = await self._connection.call(batches.cancel(batch.id, batch.tenant.name))
        if not fields:
            raise no_batch(batch.id)
        found = self._demanded(batch.id, fields)
        if not changed and found.status not in {"cancelling", "cancelled"}:
            raise BatchEnded(f"the batch is {found.status}: there is nothing to cancel")
        return found

    async def waiting(self, limit: int) -> list[Batch]:
        """Up to `limit` batches without a driver, the longest waiting first.

        Raises RelayUnavailable.
        """
        now = f"{self._connection.now():.6f}"
        ids = await self._connection.command(
            "ZRANGEBYSCORE", redis_keys.BATCHES, "-inf", now, "LIMIT", 0, limit
        )
        names = [id.decode(errors="replace") for id in ids]
        answers = await self._fields(names)
        gone = [id for id, fields in zip(ids, answers, strict=True) if fields == {}]
        if gone:
            await self._connection.command("ZREM", redis_keys.BATCHES, *gone)
        found = (self._read(id, fields) for id, fields in zip(names, answers, strict=True))
        return [batch for batch in found if batch]

    async def take(self, batch: Batch) -> BatchLease | None:
        """Lease a batch without a driver; None if another driver has it.

        Raises RelayUnavailable.
        """
        driver = batches.DriverToken(batch.id, batch.tenant.name, token_hex(8))
        lease_s = self._connection.settings.lease_s
        fields = await self._connection.call(batches.take(driver, lease_s))
        if not fields:
            return None
        issued, gives_up = int(fields.get(b"issued", 0)), b"gives_up" in fields
        return BatchLease(self._demanded(batch.id, fields), driver.token, issued, gives_up)

    async def renew(self, lease: BatchLease, completed: int, failed: int) -> BatchPulse | None:
        """Renew the lease, and write the number of rows whose answers are in no part yet.

        Returns None if another driver has the batch. Raises RelayUnavailable.
        """
        lease_s = self._connection.settings.lease_s
        answer = await self._connection.call(
            batches.renew(lease.driver, lease_s, completed=completed, failed=failed)
        )
        if answer is None:
            return None
        status, now, sharing = answer
        self._connection.set_clock(now)
        return BatchPulse(_status.validate_python(status), now, sharing)

    async def free(self, lease: BatchLease) -> None:
        """Release the lease, so that another shim can drive the batch at once, or when it is due.

        Raises RelayUnavailable.
        """
        await self._connection.call(batches.free(lease.driver))

    async def start(self, lease: BatchLease, total: int) -> bool | None:
        """Record that the input is valid and has `total` rows; None if the lease is lost.

        False: the batch is for later, and waits once this lease is released. Raises
        RelayUnavailable.
        """
        return await self._connection.call(batches.start(lease.driver, total))

    async def issue(self, lease: BatchLease, rows: int) -> bool:
        """Record that rows before `rows` may be enqueued; false if the lease is lost.

        Raises RelayUnavailable.
        """
        return await self._connection.call(batches.issue(lease.driver, rows))

    async def finalize(self, lease: BatchLease, *, gives_up: bool) -> LastStatus | None:
        """Record that no more rows are run: all have ended, or the window has (`gives_up`).

        Returns the status that the batch will end with; None if the lease is lost. Raises
        RelayUnavailable.
        """
        answer = await self._connection.call(batches.finalize(lease.driver, gives_up=gives_up))
        if answer is None:
            return None
        status, has_given_up = answer
        if status == "cancelling":
            return "cancelled"
        return "expired" if has_given_up else "completed"

    async def done_rows(self, batch_id: str) -> bytes:
        """One bit per row, the highest bit of each byte first: whether a part has its answer.

        Raises RelayUnavailable.
        """
        bits: bytes | None = await self._connection.command("GET", redis_keys.batch_rows(batch_id))
        return bits or b""

    async def parts(self, batch_id: str) -> list[str]:
        """Names of the committed parts, in order of their commits; raises RelayUnavailable."""
        found = await self._connection.command("LRANGE", redis_keys.batch_parts(batch_id), 0, -1)
        return [name.decode(errors="replace") for name in found]

    async def commit(self, lease: BatchLease, part: BatchPart) -> bool:
        """List a part that is stored, and mark its rows; false if the lease is lost.

        It is lost, too, if a row is marked already, which only another driver can have done. Raises
        RelayUnavailable.
        """
        return await self._connection.call(
            batches.commit(
                lease.driver,
                part.name,
                part.rows,
                completed=part.completed,
                failed=part.failed,
                usage=part.usage,
            )
        )

    async def finish(
        self,
        lease: BatchLease,
        status: LastStatus,
        *,
        files: Sequence[StoredFile | None] = (None, None),
        errors: Sequence[LineError] = (),
    ) -> bool:
        """End a batch, with the records of its output and error file, whose bytes are stored.

        Returns False if the lease is lost, or not all rows are marked. Raises RelayUnavailable.
        """
        fields = ("output_file_id", "error_file_id")
        created = zip(fields, files, strict=True)
        return await self._connection.call(
            batches.finish(
                lease.driver,
                status,
                line_errors=line_errors_json(errors),
                parts_name=parts_name(lease.batch.id),
                keep_s=_ENDED_S,
                ttl_s=lease.batch.output_ttl_s,
                notice=batch_notice(lease.batch, status),
                created={name: (file, stored_name(file.id)) for name, file in created if file},
            )
        )


class BatchJobs:
    """Jobs of a batch's rows, many at a time; methods raise RelayUnavailable."""

    def __init__(self, connection: Connection) -> None:
        """Use this connection."""
        self._connection = connection

    async def statuses(self, job_ids: Sequence[str]) -> list[Status | None]:
        """The status of each job, in order; None if there is no record.

        Raises RelayUnavailable.
        """
        return await self._connection.call(jobs.statuses(job_ids))

    async def forget(self, job_ids: Sequence[str], tenant: str) -> None:
        """Delete records and logs of jobs that have ended and whose answers are stored.

        Raises RelayUnavailable.
        """
        for at in range(0, len(job_ids), _FORGOTTEN_AT_ONCE):
            await self._connection.call(jobs.forget(job_ids[at : at + _FORGOTTEN_AT_ONCE], tenant))


def parts_name(batch_id: str) -> str:
    """The name below which a batch's parts are in the storage."""
    return f"batches/{batch_id}"


def _digest(tenant: str, key: str) -> str:
    return blake2b(f"{tenant} {key}".encode(), digest_size=16).hexdigest()


def _too_many(tenant: Tenant, most: int) -> QueueFull:
    return QueueFull(
        f"tenant {tenant.name} has {most} batches under way, as many as may be "
        "(FLEET_TENANT_BATCHES): wait for one to end, or cancel one",
        retry_after_s=_RETRY_AFTER_S,
        scope="tenant",
        limit=most,
        held=most,
    )


def no_batch(batch_id: str) -> UnknownBatch:
    """The error for a batch that does not exist or belongs to another tenant."""
    return UnknownBatch(f"there is no batch {batch_id[:64]}: it was long ago, or never was")
