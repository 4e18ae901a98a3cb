"""Job records: one hash a job, written by the scripts of `relay/lua/jobs`, kept as long as its log.

A client may name a job by the first characters of its id (relay/scripts/id_prefixes.py).
"""

import json
import re
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from pydantic import ValidationError
from pydantic_core import from_json

from contract import redis_keys
from contract.errors import JobDamaged, JobNotFound, NewerVersion
from contract.jobs import (
    AnyRequest,
    JobPage,
    JobRecord,
    JobSummary,
    any_request,
    not_kept,
)
from contract.requests import Kind, disconnect_policy, disconnect_text
from contract.result import Status
from contract.tenants import DEFAULT_TENANT, Tenant
from contract.wire import UNREADABLE, VERSION, number
from relay.compaction.block import RECORD_ID, record_fields
from relay.connection import Argument, Connection, Hash
from relay.multiplexer import LargeWord
from relay.scheduling.later import shown
from relay.scripts.id_prefixes import id_from_prefix
from relay.scripts.tenant_scripts import MOST_SEEN, SEEN_AT_ONCE, ListSpan, of_tenant
from relay.turns.list_turns import list_turns

_NUMBERS = (
    "created_at",
    "deadline_at",
    "started_at",
    "ended_at",
    "dead_at",
    "not_before",
    "freed_at",
)
_IDS: Final = ("after", "after_any")
_WRITTEN_APART: Final = frozenset(
    {"created_at", "metadata", "on_disconnect", "after", "after_any", "blocked", "target"}
)
_READ: Final = (*JobRecord.model_fields, "compacted")
"""Fields of a record but its request, which may be large."""
_KNOWN: Final = {name.encode(): name for name in JobRecord.model_fields}
_LISTED: Final = tuple(JobSummary.model_fields)
_HIGHEST_VERSION: Final = 1_000
_NEW_WORD: Final = re.compile(r"[a-z][a-z0-9_-]{1,39}\Z")
"""As a later version may name a kind of job or a status."""
_PAGE = 100
_LONGEST_SCAN = 5_000
"""Records that one page reads at most before it returns what matched."""


def to_hash(record: JobRecord, request: bytes | LargeWord) -> dict[str, Argument]:
    """The fields of a new record's hash; a script adds `created_at`, and `None` is left out."""
    # Every other field is text or a number, which model_dump would find out field by field.
    fields = {
        name: str(value)
        for name, value in record.__dict__.items()
        if value is not None and name not in _WRITTEN_APART
    }
    if record.metadata:
        fields["metadata"] = json.dumps(record.metadata)
    fields |= {name: " ".join(ids) for name in _IDS if (ids := getattr(record, name))}
    if record.blocked:
        fields["blocked"] = "1"
    policy = disconnect_text(record.on_disconnect)
    return {**fields, "on_disconnect": policy, "request": request}


def from_hash(fields: Hash) -> JobRecord:
    """Read what `to_hash` wrote and the scripts have changed since.

    A field that a newer version wrote is left alone: fleets are upgraded one process at a time.
    Raises NewerVersion where that is not enough, JobDamaged where no version can have written it.
    """
    try:
        return _from_hash(fields)
    except UNREADABLE as error:
        why = type(error).__name__
        if isinstance(error, ValidationError):
            why = f"{error.errors()[0]['loc'][0]} is not known here"
        if not _is_newer(fields, error):
            raise damaged_job(_id_in(fields), why) from error
        raise NewerVersion(
            f"job {_id_in(fields)} was written by a newer version of the fleet ({why}): ask a "
            "process of that version"
        ) from error


def _is_newer(fields: Hash, error: BaseException) -> bool:
    """Whether a newer version may have written this record, which cannot be read here."""
    version = fields.get(b"v", b"")
    if version.isdigit() and VERSION < int(version[:9]) < _HIGHEST_VERSION:
        return True
    wrong = error.errors() if isinstance(error, ValidationError) else []
    return bool(wrong) and all(
        each["type"] == "literal_error" and _NEW_WORD.match(str(each["input"])) for each in wrong
    )


def damaged_job(job_id: str, why: str) -> JobDamaged:
    """The error for a job of which Redis has what no process of the fleet has written."""
    return JobDamaged(
        f"the record of job {job_id[:64]} is damaged in Redis ({why}): it cannot be shown or run; "
        "delete the job, and send the request again"
    )


def _id_in(fields: Hash) -> str:
    return fields.get(b"id", b"").decode("ascii", "replace")[:64]


def _from_hash(fields: Hash) -> JobRecord:
    text: dict[str, Any] = {
        _KNOWN[name]: value.decode() for name, value in fields.items() if name in _KNOWN
    }
    text["metadata"] = from_json(text.get("metadata", "{}"))
    try:
        policy = disconnect_policy(text.get("on_disconnect", "continue"))
    except ValueError:
        policy = "continue"
    numbers = {name: number(text[name]) for name in _NUMBERS if name in text}
    ids = {name: tuple(text[name].split()) for name in _IDS if name in text}
    return JobRecord.model_validate({**text, **numbers, **ids, "on_disconnect": policy})


def requested(request: bytes) -> AnyRequest:
    """Read a request as it was enqueued; raises NewerVersion, JobDamaged."""
    try:
        return any_request.validate_json(request)
    except ValidationError as error:
        if error.errors()[0]["type"] == "metadata":
            # Of a version that did not bound it; the record has it, and no worker reads it.
            return requested(json.dumps({**json.loads(request), "metadata": {}}).encode())
        if error.errors()[0]["type"] == "json_invalid":
            raise JobDamaged(
                "the request of this job is damaged in Redis: send it again"
            ) from error
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise NewerVersion(
            f"the request is of a newer version of the fleet ({where} is not known here)"
        ) from error


class JobState(NamedTuple):
    """The fields needed to give a job back, which every version writes alike."""

    queue: str
    status: str
    attempt: int
    created_at: float
    facts: str | None
    """What a claim needs (JSON, relay/order.py); older versions did not write it."""
    not_before: float | None = None
    blocked: bool = False


class Records:
    """Reads job records."""

    def __init__(self, connection: Connection) -> None:
        """Read through this connection."""
        self._connection = connection

    async def get(self, job_id: str) -> JobRecord:
        """The record of a job; raises JobNotFound, JobDamaged, NewerVersion, RelayUnavailable."""
        fields = await self._hash(job_id, _READ, b"metadata")
        with self._named(job_id):
            record = from_hash(fields)
            if record.id != job_id:
                raise damaged_job(job_id, "it has another id")
            return record

    @contextmanager
    def _named(self, job_id: str) -> Generator[None]:
        """Have the log name a record that cannot be read: its client learns only that it cannot."""
        try:
            yield
        except NewerVersion as error:
            self._connection.pass_over(redis_keys.record(job_id), error)
            raise

    async def get_for_tenant(self, job_id: str, tenant: Tenant) -> JobRecord:
        """The record of a job that this tenant may see: its own; an admin's sees any.

        `job_id` may be a prefix of an id, if only one id that the tenant may see has it.
        Raises JobNotFound, with the same text if it is another tenant's; AmbiguousId;
        RelayUnavailable.
        """
        whole = job_id
        if not redis_keys.JOB_ID.match(job_id):
            index = redis_keys.RECENT if tenant.admin else redis_keys.recent(tenant.name)
            found = await id_from_prefix(self._connection, index, job_id, redis_keys.record)
            # A Celery application may have chosen a task's id that looks like a prefix.
            whole = found or redis_keys.job_id(job_id)
        try:
            record = await self.find(whole)
        except NewerVersion:
            if await self.is_of(whole, tenant):
                raise
            record = None
        if record is None or not sees(tenant, record):
            raise _no_job(job_id)
        return record

    async def is_of(self, job_id: str, tenant: Tenant) -> bool:
        """Whether a tenant may know of a job that cannot be read; raises RelayUnavailable."""
        owner, listed = await self._connection.replies(
            [
                ("HGET", redis_keys.record(job_id), "tenant"),
                ("ZSCORE", redis_keys.recent(tenant.name), job_id),
            ]
        )
        return tenant.admin or owner == tenant.name.encode() or listed is not None

    async def find(self, job_id: str) -> JobRecord | None:
        """The record of a job, or None; raises RelayUnavailable."""
        try:
            return await self.get(job_id)
        except JobNotFound:
            return None

    async def request(self, job_id: str) -> AnyRequest:
        """The request of a job; raises JobNotFound, NewerVersion, RelayUnavailable."""
        names = ("id", "compacted", "request", "retention_s")
        fields = await self._hash(job_id, names, b"request")
        if b"request" not in fields and fields.get(b"retention_s") == b"0":
            raise not_kept(job_id)
        if b"request" not in fields:
            raise JobNotFound(
                f"the request of job {job_id} is not kept: it has more than 64 KiB, and the job "
                "ended before it was started"
            )
        with self._named(job_id):
            return requested(fields[b"request"])

    async def state(self, job_id: str) -> JobState | None:
        """The fields of a job that every version writes alike; None without them or if damaged.

        Raises RelayUnavailable.
        """
        key = redis_keys.record(job_id)
        (found,) = await self._connection.replies([("HMGET", key, *JobState._fields)])
        if found is None or None in found[:4]:
            return None
        try:
            return self._state(found)
        except ValueError as error:
            self._connection.pass_over(key, error)
            return None

    @staticmethod
    def _state(found: Sequence[Any]) -> JobState:
        queue, status, attempt, created_at, facts, not_before, blocked = found
        return JobState(
            queue.decode(),
            status.decode(),
            int(attempt),
            number(created_at),
            None if facts is None else facts.decode(),
            None if not_before is None else number(not_before),
            blocked is not None,
        )

    async def _hash(self, job_id: str, names: Sequence[str], needed: bytes) -> Hash:
        """These fields of a record, also if compaction has moved the needed one to the log."""
        key = redis_keys.record(job_id)
        (values,) = await self._connection.replies([("HMGET", key, *names)])
        if values is None:
            raise damaged_job(job_id, "it is of another type")
        fields = _fields(names, values)
        if b"id" not in fields:
            raise _no_job(job_id)
        if not _has_moved(needed, fields):
            return fields
        try:
            whole = await self._with_moved(job_id, fields)
        except NewerVersion:
            if needed == b"metadata":  # the rest of the record is shown
                return fields
            raise
        if needed not in whole:
            raise _no_job(job_id)  # it has expired between the two reads
        return whole

    async def _with_moved(self, job_id: str, fields: Hash) -> Hash:
        """A record with the fields that compaction has moved to its log."""
        words = ("XRANGE", redis_keys.log(job_id), RECORD_ID, RECORD_ID)
        (entries,) = await self._connection.replies([words])
        moved: Hash = {}
        if entries:
            try:
                moved = record_fields(entries[0][1])
            except ValueError as error:
                self._connection.pass_over(redis_keys.log(job_id), error)
                raise damaged_job(job_id, "its log is") from error
        return {**fields, **moved}

    async def page(
        self,
        *,
        visible_to: Tenant = DEFAULT_TENANT,
        status: Status | None = None,
        kind: Kind | None = None,
        queue: str | None = None,
        backend: str | None = None,
        tenant: str | None = None,
        search: str | None = None,
        limit: int = 50,
        before: str | None = None,
    ) -> JobPage:
        """Jobs that match, newest first; `before` is the `next` of the page before this one.

        `search` is text that a job's id begins with, or that its model, queue, tenant or worker
        contains.

        A page with a `next` may hold fewer than `limit`, even none: each page reads a
        bounded number of records.
        """
        found: list[JobRecord] = []
        cursor, read = before, 0
        key = redis_keys.RECENT if visible_to.admin else redis_keys.recent(visible_to.name)
        wanted = {
            "status": status, "kind": kind, "queue": queue, "backend": backend, "tenant": tenant,
        }  # fmt: skip
        async with list_turns().turn(visible_to.name):
            async for cursor, stored in self.newest_first(key, before):
                record = stored and shown(stored, self._connection.now())
                read += 1
                if record and _matches(record, **wanted) and _has(record, search):
                    found.append(record)
                if len(found) == limit:
                    return JobPage(jobs=tuple(found), next=cursor)
        return JobPage(jobs=tuple(found), next=cursor if read >= _LONGEST_SCAN else None)

    async def newest_first(
        self, key: str, before: str | None
    ) -> AsyncGenerator[tuple[str, JobRecord | None]]:
        """Jobs of a sorted set by time, a bounded number, each with the cursor that follows it.

        They have no metadata: what is large is read of one job at a time. None in place of a
        record that has expired; raises RelayUnavailable.
        """
        highest = f"({float(before)!r}" if before else "+inf"
        for _ in range(_LONGEST_SCAN // _PAGE):
            flat = await self._connection.command(
                "ZREVRANGEBYSCORE", key, highest, "-inf", "WITHSCORES", "LIMIT", 0, _PAGE
            )
            rows = scored(flat)
            if not rows:
                return
            records = await self.for_list([job_id for job_id, _ in rows])
            for (_, score), record in zip(rows, records, strict=True):
                highest = f"({score!r}"
                yield repr(score), record

    async def newest_of_tenant(
        self, key: str, tenant: str, before: str | None
    ) -> AsyncGenerator[tuple[str | None, JobRecord | None]]:
        """The same of one tenant's jobs in a list of all tenants'.

        A cursor that is None is the last one: nothing of the list is left. Raises RelayUnavailable.
        """
        last, read = float(before) if before else None, 0
        for _ in range(0, MOST_SEEN, SEEN_AT_ONCE):
            span = ListSpan.older_than(last)
            part = await self._connection.call(of_tenant(key, tenant, span))
            for first in range(0, len(part.rows), _PAGE):
                rows = part.rows[first : first + _PAGE]
                records = await self.for_list([job_id for job_id, _ in rows])
                for (_, score), record in zip(rows, records, strict=True):
                    yield repr(score), record
            if part.is_last:
                yield None, None
                return
            read, last = read + len(part.rows), part.last
            yield repr(last), None
            if read >= _LONGEST_SCAN:
                return

    async def for_list(self, ids: Sequence[str]) -> list[JobRecord | None]:
        """What lists have of these jobs; None for one that has expired or cannot be read."""
        found = await self._connection.replies(
            [("HMGET", redis_keys.record(job_id), *_LISTED) for job_id in ids]
        )
        return [self._listed(_fields(_LISTED, values or ())) for values in found]

    def _listed(self, fields: Hash) -> JobRecord | None:
        """A record for a list, which passes over what it cannot read."""
        try:
            return from_hash(fields) if b"id" in fields else None
        except NewerVersion as error:
            self._connection.pass_over(redis_keys.record(_id_in(fields)), error)
            return None


def _fields(names: Sequence[str], values: Sequence[bytes | None]) -> Hash:
    """The fields that a record has, as HGETALL would return them."""
    found = zip(names, values, strict=False)
    return {name.encode(): value for name, value in found if value is not None}


def _has_moved(field: bytes, fields: Hash) -> bool:
    """Whether compaction has moved a field of this record to the log."""
    return field in fields.get(b"compacted", b"").split()


def sees(tenant: Tenant, record: JobRecord) -> bool:
    """Whether a tenant may know of a job."""
    return tenant.admin or record.tenant == tenant.name


def _no_job(job_id: str) -> JobNotFound:
    return JobNotFound(
        f"there is no job {job_id[:64]}, or it ended so long ago that its log has expired"
    )


def scored(flat: list[Any]) -> list[tuple[str, float]]:
    """Members of a sorted set with their scores, as a server of either protocol replies."""
    if flat and isinstance(flat[0], (tuple, list)):
        return [(member.decode(errors="replace"), float(score)) for member, score in flat]
    return [
        (m.decode(errors="replace"), float(s)) for m, s in zip(flat[::2], flat[1::2], strict=True)
    ]


def _matches(record: JobRecord, **wanted: str | None) -> bool:
    return all(value is None or getattr(record, name) == value for name, value in wanted.items())


def _has(record: JobRecord, search: str | None) -> bool:
    if not search:
        return True
    wanted = search.lower()
    names = (record.model, record.queue, record.tenant, record.worker)
    return record.id.startswith(wanted) or any(wanted in (name or "").lower() for name in names)
