"""Idempotency keys: the same key with the same request is the same job, on any shim, at any time.

The race is decided before the job exists: whoever comes first writes the key with the id that the
job will have, and everybody, they too, enqueues under that id, which is one job however often it is
done. So a shim that dies between the two is finished by the repeat of its request. A key that led
to no job, because the queue was full or Redis away, is let go of.

Invariant: a key lives as long as its job's record; any worker's audit sees to that (`renew`). Each
script may be run twice.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Self
from uuid import uuid4

from pydantic_core import to_json

from contract import redis_keys
from contract.errors import KeyReused
from contract.jobs import AnyRequest
from relay.connection import Connection

_STATE: Final = """#!lua flags=allow-oom
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local settled_s = 60
local function record_of(job) return 'fleet:j:' .. job .. ':record' end
"""

HOLD: Final = (
    _STATE
    + """
-- KEYS key keys; ARGV fingerprint job queue ttl_s look_s (queue is '' to look only)
local told, job, queue, at =
    unpack(redis.call('HMGET', KEYS[1], 'fingerprint', 'job', 'queue', 'at'))
if told then
    local there = redis.call('EXISTS', record_of(job)) == 1
    if told == ARGV[1] then return {job, queue, 0} end
    if there or now - at < settled_s then return {job, queue, -1} end
end
if ARGV[3] == '' then return false end
redis.call('HSET', KEYS[1], 'fingerprint', ARGV[1], 'job', ARGV[2], 'queue', ARGV[3],
           'at', string.format('%.6f', now))
redis.call('EXPIRE', KEYS[1], ARGV[4])
redis.call('ZADD', KEYS[2], string.format('%.3f', now + ARGV[5]), KEYS[1])
return {ARGV[2], ARGV[3], 1}
"""
)
"""Take a key, or say who has it: job, queue, and whether it is new.

-1 in place of that means that the key belongs to another request.
"""

SETTLE: Final = """
-- KEYS key; ARGV old_job new_job
if redis.call('HGET', KEYS[1], 'job') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'job', ARGV[2])
return 1
"""
"""The job under which a request found its place is another's, whom it follows."""

LET_GO: Final = (
    _STATE
    + """
-- KEYS key keys; ARGV job
if redis.call('HGET', KEYS[1], 'job') ~= ARGV[1] then return 0 end
local status, tries = unpack(redis.call('HMGET', record_of(ARGV[1]), 'status', 'tries'))
if status and not (status == 'failed' and tonumber(tries) == 0) then return 0 end
redis.call('ZREM', KEYS[2], KEYS[1])
return redis.call('DEL', KEYS[1])
"""
)
"""Free a key whose job was refused; not one whose job got in by another request's hand."""

RENEW: Final = (
    _STATE
    + """
-- KEYS keys; ARGV ttl_s look_s limit
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[3])
for _, key in ipairs(due) do
    local job, at = unpack(redis.call('HMGET', key, 'job', 'at'))
    local record = job and record_of(job)
    local left_ms = record and redis.call('PTTL', record) or -2
    if not job then
        redis.call('ZREM', KEYS[1], key)
    elseif left_ms == -2 and now - at > settled_s then
        redis.call('ZREM', KEYS[1], key)
        redis.call('DEL', key)
    elseif left_ms > 0 then
        redis.call('ZREM', KEYS[1], key)
        redis.call('PEXPIRE', key, left_ms)
    else
        redis.call('EXPIRE', key, ARGV[1])
        redis.call('ZADD', KEYS[1], string.format('%.3f', now + ARGV[2]), key)
    end
end
return #due
"""
)
"""Let keys that are due live on with their jobs, end with their records, or go."""

_UNATTENDED_S: Final = 7 * 86400
"""For so long a key of a job that waits lives although no worker runs that would renew it."""
_AT_ONCE: Final = 200


class Key(NamedTuple):
    """One caller's key for one request."""

    name: str
    """In Redis; what the caller chose is only in it as a hash."""
    fingerprint: str

    @classmethod
    def of(cls, tenant: str, key: str, request: AnyRequest, *circumstances: str) -> Self:
        """The key of a tenant for a request; the order of a request's fields does not matter.

        `circumstances` are what matters beside the request.
        """
        digest = hashlib.sha256(key.encode()).hexdigest()
        said = [request.kind, request.model_dump(exclude_defaults=True), *circumstances]
        canonical = to_json(_in_order(said))
        return cls(redis_keys.idempotency(tenant, digest), hashlib.sha256(canonical).hexdigest())


def _in_order(value: Any) -> Any:
    """The same value with every mapping by its keys' order."""
    if isinstance(value, Mapping):
        return {key: _in_order(value[key]) for key in sorted(value)}
    if isinstance(value, (list, tuple)):
        return [_in_order(each) for each in value]
    return value


class Hold(NamedTuple):
    """What a key leads to."""

    job_id: str
    queue: str
    """Chosen by whoever came first: two that race must not put one job into two queues."""
    is_new: bool
    """Whether nobody had the key before."""


class Idempotency:
    """Keeps keys and the jobs that they lead to."""

    def __init__(self, connection: Connection) -> None:
        """Work through this connection."""
        self._connection = connection

    async def find(self, key: Key) -> Hold | None:
        """What the key leads to; raises KeyReused, RelayUnavailable."""
        return await self._hold(key, "")

    async def hold(self, key: Key, queue: str) -> Hold:
        """Take the key for a job in this queue, or learn who was faster.

        Raises KeyReused, RelayUnavailable.
        """
        held = await self._hold(key, queue)
        assert held is not None  # noqa: S101 - for the type checker: with a queue the key is taken
        return held

    async def _hold(self, key: Key, queue: str) -> Hold | None:
        answer = await self._connection.run(
            HOLD,
            [key.name, redis_keys.IDEMPOTENCY],
            [key.fingerprint, uuid4().hex, queue, *self._times],
        )
        if not answer:
            return None
        job_id, its_queue, is_new = answer
        if is_new < 0:
            raise KeyReused(
                f"the Idempotency-Key belongs to another request, which became job "
                f"{job_id.decode()}: send that request again, or this one with a new key"
            )
        return Hold(job_id.decode(), its_queue.decode(), bool(is_new))

    async def settle(self, key: Key, hold: Hold, job_id: str) -> None:
        """Say that the key leads to this job instead; raises RelayUnavailable."""
        await self._connection.run(SETTLE, [key.name], [hold.job_id, job_id])

    async def let_go(self, key: Key, hold: Hold) -> None:
        """Free the key of a request that was refused; raises RelayUnavailable."""
        await self._connection.run(LET_GO, [key.name, redis_keys.IDEMPOTENCY], [hold.job_id])

    async def renew(self) -> None:
        """Keep keys as long as their jobs' records, look once; raises RelayUnavailable."""
        await self._connection.run(RENEW, [redis_keys.IDEMPOTENCY], [*self._times, _AT_ONCE])

    @property
    def _times(self) -> tuple[int, float]:
        log_ttl_s = self._connection.settings.log_ttl_s
        return int(log_ttl_s + _UNATTENDED_S), log_ttl_s / 2
