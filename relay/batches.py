"""Batches' records, and who drives each: a lease, whose token every step of the driver must show.

A batch is driven by one shim at a time. What the driver has written to the storage counts only once
`commit` has listed it, in the same script that marks its rows as done; so a driver that was taken
for dead, or died between the two, leaves no answer twice. Nothing else of a driver's work is kept:
the next one goes on from the marks. A token is random, so that a Redis that came back with a
shorter past cannot give the same one twice. Each script may be run twice.
"""

import json
from collections.abc import Sequence
from hashlib import blake2b
from secrets import token_hex
from typing import Any, Final, NamedTuple
from uuid import uuid4

from pydantic import TypeAdapter

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
from contract.tenants import Tenant
from contract.wire import encode
from relay.connection import Argument, Connection
from relay.files import REGISTER, ids_from, place_after, stored_name
from relay.id_prefixes import whole_id
from relay.records import Hash, pairs

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


def to_fields(new: NewBatch, tenant: Tenant, batch_id: str) -> dict[str, str | bytes]:
    """The fields of a new batch's hash; its times and its status are the script's to say."""
    fields: dict[str, str | bytes] = {
        name: str(value) for name, value in new if name not in _JSON and value is not None
    }
    fields |= {"id": batch_id, "metadata": json.dumps(new.metadata), "tenant": encode(tenant)}
    return fields


def batch_of(fields: Hash) -> Batch:
    """Read what `to_fields` wrote and the scripts have changed since."""
    text: dict[str, Any] = {name.decode(): value.decode() for name, value in fields.items()}
    for name in _JSON:
        if name in text:
            text[name] = json.loads(text[name])
    pending = {name: int(text.get(f"pending_{name}", 0)) for name in _COUNTS}
    counts = {name: int(text.get(name, 0)) + pending[name] for name in _COUNTS}
    used = {name: int(text.get(name, 0)) for name in _USED}
    known = {name: value for name, value in text.items() if name not in _OURS}
    whole = {**known, "counts": Counts(**counts), "usage": Usage(**used)}
    return Batch.model_validate(whole, extra="ignore")


def line_errors_json(errors: Sequence[LineError]) -> bytes:
    """What is wrong with a file, as the hash has it; empty if nothing is."""
    return _line_errors.dump_json(tuple(errors)) if errors else b""


_TIME: Final = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local function exact(at) return string.format('%.6f', at) end
"""
_PRELUDE: Final = """
local batch, rows, parts, live, index, sharing = unpack(KEYS)
local function get(field) return redis.call('HGET', batch, field) end
"""
_DRIVEN: Final = (
    "#!lua flags=allow-oom\n"
    + _PRELUDE
    + """
if get('driver') ~= ARGV[1] then return false end
"""
)

CREATE: Final = (
    "#!lua\n"
    + _PRELUDE
    + REGISTER
    + """
-- KEYS ... stored held; ARGV id window_s spare_s parts input most (field value)...
local stored, held = KEYS[7], KEYS[8]
if redis.call('EXISTS', batch) == 0 then
    if redis.call('SCARD', sharing) >= tonumber(ARGV[6]) then return false end
    local expires_at = now + ARGV[2]
    redis.call('HSET', batch, 'status', 'validating', 'created_at', exact(now),
               'expires_at', exact(expires_at), unpack(ARGV, 7))
    redis.call('ZADD', live, 0, ARGV[1])
    redis.call('SADD', sharing, ARGV[1])
    listed(index, now, ARGV[1], ARGV[2] + 31 * 86400)
    redis.call('ZADD', stored, exact(expires_at + 30 * 86400), ARGV[4])
    local until_ = tonumber(redis.call('ZSCORE', held, ARGV[5]) or 0)
    redis.call('ZADD', held, exact(math.max(until_, expires_at + ARGV[3])), ARGV[5])
end
return redis.call('HGETALL', batch)
"""
)
"""Begin a batch, and hold its input. Returns its record; nothing: the tenant has too many."""

TAKE: Final = (
    "#!lua flags=allow-oom\n"
    + _PRELUDE
    + _TIME
    + """
-- ARGV id token lease_s
local leased_until = redis.call('ZSCORE', live, ARGV[1])
if not leased_until then return false end
if get('driver') ~= ARGV[2] then
    if tonumber(leased_until) > now then return false end
    redis.call('HSET', batch, 'driver', ARGV[2])
    redis.call('HDEL', batch, 'pending_completed', 'pending_failed')
end
redis.call('ZADD', live, exact(now + ARGV[3]), ARGV[1])
return redis.call('HGETALL', batch)
"""
)
"""Lease a batch that nobody drives. Returns its record, or nothing."""

RENEW: Final = (
    _DRIVEN
    + _TIME
    + """
-- ARGV token lease_s pending_completed pending_failed
redis.call('ZADD', live, 'XX', exact(now + ARGV[2]), get('id'))
redis.call('HSET', batch, 'pending_completed', ARGV[3], 'pending_failed', ARGV[4])
local members = redis.call('SMEMBERS', sharing)
local driven = 0
for _, until_ in ipairs(members[1] and redis.call('ZMSCORE', live, unpack(members)) or {}) do
    if until_ and tonumber(until_) > now then driven = driven + 1 end
end
return {get('status'), exact(now), driven}
"""
)
"""Hold a batch for longer. Returns its status, now, and how many share the tenant's window."""

FREE: Final = (
    _DRIVEN
    + """
redis.call('HDEL', batch, 'driver')
redis.call('ZADD', live, 'XX', 0, get('id'))
return 1
"""
)
"""Let go of a batch."""

START: Final = (
    _DRIVEN
    + _TIME
    + """
-- ARGV token total
redis.call('HSET', batch, 'total', ARGV[2])
if get('status') == 'validating' then
    redis.call('HSET', batch, 'status', 'in_progress', 'in_progress_at', exact(now))
end
return 1
"""
)
"""Say that the input is good. A batch that is being cancelled stays so."""

ISSUE: Final = (
    _DRIVEN
    + """
-- ARGV token rows
redis.call('HSET', batch, 'issued', math.max(tonumber(get('issued') or 0), ARGV[2]))
return 1
"""
)
"""Say up to which row jobs may exist."""

COMMIT: Final = (
    _DRIVEN
    + """
-- ARGV token part completed failed prompt completion cached reasoning row...
if get('last_part') == ARGV[2] then return 1 end
for i = 9, #ARGV do
    if redis.call('GETBIT', rows, ARGV[i]) == 1 then return 0 end
end
for i = 9, #ARGV do redis.call('SETBIT', rows, ARGV[i], 1) end
redis.call('RPUSH', parts, ARGV[2])
for i, field in ipairs({'completed', 'failed', 'prompt_tokens', 'completion_tokens',
                        'cached_tokens', 'reasoning_tokens'}) do
    redis.call('HINCRBY', batch, field, ARGV[2 + i])
end
redis.call('HSET', batch, 'last_part', ARGV[2])
redis.call('HDEL', batch, 'pending_completed', 'pending_failed')
return 1
"""
)
"""List a part, mark its rows, count them: all or nothing. 0: a row had its answer before."""

CANCEL: Final = (
    "#!lua flags=allow-oom\n"
    + _PRELUDE
    + _TIME
    + """
local status, changed = get('status'), 0
if status == 'validating' or status == 'in_progress' then
    redis.call('HSET', batch, 'status', 'cancelling', 'cancelling_at', exact(now))
    changed = 1
end
local fields = redis.call('HGETALL', batch)
table.insert(fields, 1, changed)
return fields
"""
)
"""Ask for the end. Returns whether that is new, and the record."""

FINALIZE: Final = (
    _DRIVEN
    + _TIME
    + """
-- ARGV token gives_up
if get('status') == 'in_progress' then
    redis.call('HSET', batch, 'status', 'finalizing', 'finalizing_at', exact(now))
    if ARGV[2] == '1' then redis.call('HSET', batch, 'gives_up', 1) end
end
return {get('status'), get('gives_up') or ''}
"""
)
"""Say that no more rows are run. Returns the status, which a cancel may have changed before."""

FINISH: Final = (
    _DRIVEN
    + REGISTER
    + """
-- KEYS ... stored files output errors
-- ARGV token id status line_errors parts keep_s ttl_s (id name json) (id name json)
if ARGV[3] ~= 'failed'
        and redis.call('BITCOUNT', rows) < tonumber(get('total') or 0) then return 0 end
for i, field in ipairs({'output_file_id', 'error_file_id'}) do
    local at = 5 + i * 3
    if ARGV[at] ~= '' then
        register(KEYS[8 + i], KEYS[8], KEYS[7], ARGV[at], ARGV[at + 1], ARGV[at + 2],
                 tonumber(ARGV[7]), now)
        redis.call('HSET', batch, field, ARGV[at])
    end
end
if ARGV[4] ~= '' then redis.call('HSET', batch, 'errors', ARGV[4]) end
redis.call('HSET', batch, 'status', ARGV[3], ARGV[3] .. '_at', exact(now))
redis.call('HDEL', batch, 'driver', 'issued', 'last_part', 'gives_up', 'pending_completed',
           'pending_failed')
redis.call('EXPIRE', batch, ARGV[6])
redis.call('DEL', rows, parts)
redis.call('ZREM', live, ARGV[2])
redis.call('SREM', sharing, ARGV[2])
redis.call('ZADD', KEYS[7], exact(now), ARGV[5])
return 1
"""
)
"""End a batch. 0: there are rows without an answer."""


_status: TypeAdapter[BatchStatus] = TypeAdapter(BatchStatus)
_ENDED_S = 30 * 86400
"""How long the record of a batch is kept after its end."""
_RETRY_AFTER_S = 60.0
_SPARE_S = 86400
"""How much longer than its window what a batch reads and writes is kept from being deleted."""


class BatchLease(NamedTuple):
    """A batch in a driver's hands."""

    batch: Batch
    token: str
    issued: int
    """Rows before this one may have been enqueued by an earlier driver."""
    gives_up: bool
    """Whether an earlier driver found that the window has ended."""


class BatchPulse(NamedTuple):
    """What a driver learns each time it renews its lease."""

    status: BatchStatus
    now: float
    sharing: int
    """Batches of the tenant that are driven now, this one among them."""


class BatchPart(NamedTuple):
    """Answers that were written to the storage, under one name an output and one of errors."""

    name: str
    rows: Sequence[int]
    completed: int
    failed: int
    usage: Usage


class BatchStore:
    """Keeps records and leases; raises RelayUnavailable everywhere."""

    def __init__(self, connection: Connection) -> None:
        """Work through this connection."""
        self._connection = connection

    async def create(
        self, new: NewBatch, tenant: Tenant, *, most: int, key: str | None = None
    ) -> Batch:
        """Begin a batch of a file that is there; with the key of another one, return that one.

        Raises QueueFull if `most` of the tenant's are under way, KeyReused if the key belongs to
        a batch of something else.
        """
        batch_id = f"batch_{_digest(tenant.name, key) if key else uuid4().hex}"
        flat = [x for field in to_fields(new, tenant, batch_id).items() for x in field]
        keys = [*self._keys(batch_id, tenant.name), redis_keys.STORED, redis_keys.HELD]
        stored, held = parts_name(batch_id), stored_name(new.input_file_id)
        fields = await self._connection.run(
            CREATE, keys, [batch_id, new.window_s, _SPARE_S, stored, held, most, *flat]
        )
        if not fields:
            raise QueueFull(
                f"tenant {tenant.name} has {most} batches under way, as many as may be "
                "(FLEET_TENANT_BATCHES): wait for one to end, or cancel one",
                retry_after_s=_RETRY_AFTER_S,
                scope="tenant",
                limit=most,
                held=most,
            )
        batch = batch_of(pairs(fields))
        if any(getattr(batch, name) != value for name, value in new):
            raise KeyReused(
                f"the Idempotency-Key belongs to another batch, {batch.id}: send that request "
                "again, or this one with a new key"
            )
        return batch

    async def seen(self, batch_id: str, tenant: Tenant) -> Batch:
        """The record of a batch that this tenant may see: its own; an admin's sees any.

        `batch_id` may be the beginning of an id, if only one of its own begins so. Raises
        UnknownBatch, also if it is somebody else's, with the same words; AmbiguousId.
        """
        if not BATCH_ID.match(batch_id):
            index = redis_keys.batches(tenant.name)
            batch_id = (
                await whole_id(self._connection, index, batch_id, redis_keys.batch) or batch_id
            )
        (batch,) = await self._found([batch_id])
        if batch is None or not (tenant.admin or batch.tenant.name == tenant.name):
            raise no_batch(batch_id)
        return batch

    async def page(self, tenant: Tenant, *, limit: int, after: str | None = None) -> BatchPage:
        """The tenant's own batches, newest first; `after` is the last id of the page before.

        Raises UnknownBatch if that is not in the list.
        """
        index = redis_keys.batches(tenant.name)
        start = await place_after(self._connection, index, after, "desc")
        if start is None:
            raise no_batch(after or "")
        ids = await ids_from(self._connection, index, start, limit + 1, "desc")
        found = await self._found(ids[:limit])
        return BatchPage(
            batches=tuple(batch for batch in found if batch), has_more=len(ids) > limit
        )

    async def _found(self, ids: Sequence[str]) -> list[Batch | None]:
        answers = await self._connection.pipeline([("HGETALL", redis_keys.batch(id)) for id in ids])
        return [batch_of(fields) if b"id" in fields else None for fields in answers]

    async def cancel(self, batch: Batch) -> Batch:
        """Ask for the end of a batch; again: the same answer. Raises BatchEnded."""
        keys = self._keys(batch.id, batch.tenant.name)
        changed, *flat = await self._connection.run(CANCEL, keys)
        found = batch_of(pairs(flat))
        if not changed and found.status not in {"cancelling", "cancelled"}:
            raise BatchEnded(f"the batch is {found.status}: there is nothing to cancel")
        return found

    async def waiting(self, limit: int) -> list[Batch]:
        """Batches that nobody drives, the longest waiting first."""
        now = f"{self._connection.now():.6f}"
        ids = await self._connection.command(
            "ZRANGEBYSCORE", redis_keys.BATCHES, "-inf", now, "LIMIT", 0, limit
        )
        found = await self._found([id.decode() for id in ids])
        gone = [id for id, batch in zip(ids, found, strict=True) if batch is None]
        if gone:
            await self._connection.command("ZREM", redis_keys.BATCHES, *gone)
        return [batch for batch in found if batch]

    async def take(self, batch: Batch) -> BatchLease | None:
        """Take a batch that nobody drives; None if somebody was faster."""
        token = token_hex(8)
        flat = await self._connection.run(
            TAKE,
            self._keys(batch.id, batch.tenant.name),
            [batch.id, token, self._connection.settings.lease_s],
        )
        if not flat:
            return None
        fields = pairs(flat)
        issued, gives_up = int(fields.get(b"issued", 0)), b"gives_up" in fields
        return BatchLease(batch_of(fields), token, issued, gives_up)

    async def renew(self, lease: BatchLease, completed: int, failed: int) -> BatchPulse | None:
        """Go on driving, and tell how many rows have an answer that no part holds yet.

        None: somebody else drives it now.
        """
        answer = await self._driven(
            RENEW, lease, self._connection.settings.lease_s, completed, failed
        )
        if not answer:
            return None
        status, now, sharing = answer
        self._connection.set_clock(float(now))
        return BatchPulse(_status.validate_python(status.decode()), float(now), int(sharing))

    async def free(self, lease: BatchLease) -> None:
        """Let another shim drive it, at once."""
        await self._driven(FREE, lease)

    async def start(self, lease: BatchLease, total: int) -> bool:
        """Say that the file is good and how many rows it has; false: the lease is lost."""
        return bool(await self._driven(START, lease, total))

    async def issue(self, lease: BatchLease, rows: int) -> bool:
        """Say that rows before this one may be enqueued from now on; false: the lease is lost."""
        return bool(await self._driven(ISSUE, lease, rows))

    async def finalize(self, lease: BatchLease, *, gives_up: bool) -> LastStatus | None:
        """Say that no more rows are run, because all are done or the window has ended.

        Returns what the batch will end as; None: the lease is lost.
        """
        answer = await self._driven(FINALIZE, lease, int(gives_up))
        if not answer:
            return None
        if answer[0] == b"cancelling":
            return "cancelled"
        return "expired" if answer[1] else "completed"

    async def done_rows(self, batch_id: str) -> bytes:
        """A bit a row, the first one the highest of its byte: whether a part has its answer."""
        bits: bytes | None = await self._connection.command("GET", redis_keys.batch_rows(batch_id))
        return bits or b""

    async def parts(self, batch_id: str) -> list[str]:
        """Names of the parts that count, in the order in which they came."""
        found = await self._connection.command("LRANGE", redis_keys.batch_parts(batch_id), 0, -1)
        return [name.decode() for name in found]

    async def commit(self, lease: BatchLease, part: BatchPart) -> bool:
        """List a part that is stored, and mark its rows; false: the lease is lost.

        It is lost, too, if a row is marked already, which only another driver can have done.
        """
        used = part.usage
        return bool(
            await self._driven(
                COMMIT, lease, part.name, part.completed, part.failed, used.prompt_tokens,
                used.completion_tokens, used.cached_tokens, used.reasoning_tokens, *part.rows,
            )
        )  # fmt: skip

    async def finish(
        self,
        lease: BatchLease,
        status: LastStatus,
        *,
        files: Sequence[StoredFile | None] = (None, None),
        errors: Sequence[LineError] = (),
    ) -> bool:
        """End a batch, with the records of its output and of its errors; their bytes are there.

        False: the lease is lost, or not all rows are marked (any more).
        """
        batch = lease.batch
        args: list[Argument] = [
            batch.id, status, line_errors_json(errors), parts_name(batch.id), _ENDED_S,
            batch.output_ttl_s,
        ]  # fmt: skip
        keys = [redis_keys.STORED, redis_keys.files(batch.tenant.name)]
        for file in files:
            keys.append(redis_keys.file(file.id) if file else "")
            args += [file.id, stored_name(file.id), encode(file)] if file else ["", "", ""]
        return bool(await self._driven(FINISH, lease, *args, keys=keys))

    async def _driven(
        self, script: str, lease: BatchLease, *args: Argument, keys: Sequence[str] = ()
    ) -> Sequence[bytes]:
        own = self._keys(lease.batch.id, lease.batch.tenant.name)
        answer: Sequence[bytes] = await self._connection.run(
            script, [*own, *keys], [lease.token, *args]
        )
        return answer

    def _keys(self, batch_id: str, tenant: str) -> list[str]:
        return [
            redis_keys.batch(batch_id),
            redis_keys.batch_rows(batch_id),
            redis_keys.batch_parts(batch_id),
            redis_keys.BATCHES,
            redis_keys.batches(tenant),
            redis_keys.live_batches(tenant),
        ]


def parts_name(batch_id: str) -> str:
    """Where the parts of a batch lie in the storage."""
    return f"batches/{batch_id}"


def _digest(tenant: str, key: str) -> str:
    return blake2b(f"{tenant} {key}".encode(), digest_size=16).hexdigest()


def no_batch(batch_id: str) -> UnknownBatch:
    """The error for a batch that is not there, or not the caller's."""
    return UnknownBatch(f"there is no batch {batch_id[:64]}: it was long ago, or never was")
