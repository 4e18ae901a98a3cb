"""Idempotency keys: the same key with the same request is the same job, on any shim.

A race is decided before the job exists: the first request writes the key with the id of its future
job, and every request with the key enqueues under that id, which makes one job however often it is
repeated. So if a shim dies between the two steps, the repeated request completes them. A key whose
job was refused, because the queue was full or Redis was down, is released.

Invariant: a key lives as long as its job's record; the reconciler extends it (`renew`). Each script
may be run twice.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Self
from uuid import uuid4

from contract import redis_keys
from contract.errors import KeyReused
from contract.jobs import AnyRequest
from contract.wire import json_pieces
from relay.connection import Argument, Connection, ScriptCall
from relay.scripts.loader import load

_UNATTENDED_S: Final = 7 * 86400
"""Seconds that the key of a waiting job lives without a worker that renews it."""
_AT_ONCE: Final = 200
_ROUNDS: Final = 50
"""Of one `renew`: 10,000 keys, so that a fleet with thousands of jobs a second keeps no key longer
than its job."""


class Key(NamedTuple):
    """An idempotency key of a tenant and the fingerprint of its request."""

    name: str
    """Name in Redis; holds only a digest of the client's key."""
    fingerprint: str

    @classmethod
    def of(cls, tenant: str, key: str, request: AnyRequest, *circumstances: str) -> Self:
        """The key of a tenant for a request; the order of the request's fields does not matter.

        `circumstances` are other values that must be the same in a repeated request.
        """
        digest = hashlib.sha256(key.encode()).hexdigest()
        parts = [request.kind, request.model_dump(exclude_defaults=True), *circumstances]
        canonical = hashlib.sha256()
        for piece in json_pieces(_in_order(parts)):
            canonical.update(piece)
        return cls(redis_keys.idempotency(tenant, digest), canonical.hexdigest())


def _in_order(value: Any) -> Any:
    """The same value with all mappings sorted by key."""
    if isinstance(value, Mapping):
        return {key: _in_order(value[key]) for key in sorted(value)}
    if isinstance(value, (list, tuple)):
        return [_in_order(each) for each in value]
    return value


class Hold(NamedTuple):
    """The job of a key."""

    job_id: str
    queue: str
    """The queue of the first request: a race must not put one job into two queues."""
    is_new: bool
    """Whether this request is the first with the key."""


class KeyTimes(NamedTuple):
    """Seconds that the key of a job that has not ended lives, and until its next renewal."""

    ttl_s: int
    renew_s: float


class HoldReply(NamedTuple):
    """The job of a key: `state` is 1 (new), 0 (the same request) or -1 (another request)."""

    job_id: str
    queue: str
    state: int


class Idempotency:
    """Maps idempotency keys to jobs."""

    def __init__(self, connection: Connection) -> None:
        """Use this connection."""
        self._connection = connection

    async def find(self, key: Key) -> Hold | None:
        """The job of a key, or None; raises KeyReused, RelayUnavailable."""
        return await self._hold(key, "")

    @property
    def times(self) -> KeyTimes:
        """How long keys live."""
        log_ttl_s = self._connection.settings.log_ttl_s
        return KeyTimes(int(log_ttl_s + _UNATTENDED_S), log_ttl_s / 2)

    async def hold(self, key: Key, queue: str) -> Hold:
        """Hold the key for a new job in this queue, or return the job that has it.

        Raises KeyReused, RelayUnavailable.
        """
        held = await self._hold(key, queue)
        assert held is not None  # noqa: S101 - for the type checker: with a queue the key is held
        return held

    async def _hold(self, key: Key, queue: str) -> Hold | None:
        held = await self._connection.call(
            hold_key(key.name, key.fingerprint, job_id=uuid4().hex, queue=queue, times=self.times)
        )
        if held is None:
            return None
        return hold_of(held.job_id, held.queue, held.state)

    async def release(self, key: Key, hold: Hold) -> None:
        """Delete the key of a request that was refused; raises RelayUnavailable."""
        await self._connection.call(release_key(key.name, hold.job_id))

    async def renew(self) -> None:
        """Extend the keys that are due to the lifetime of their jobs' records.

        At most 10,000, 200 in a script. Raises RelayUnavailable.
        """
        for _ in range(_ROUNDS):
            if await self._connection.call(renew_keys(self.times, _AT_ONCE)) < _AT_ONCE:
                return


def hold_of(job_id: str, queue: str, state: int) -> Hold:
    """The job of a key; `state` is 1 (new), 0 (the same request) or -1 (another request).

    Raises KeyReused.
    """
    if state < 0:
        raise KeyReused(
            f"the Idempotency-Key belongs to another request, which became job "
            f"{job_id}: send that request again, or this one with a new key"
        )
    return Hold(job_id, queue, is_new=bool(state))


# Scripts of relay/lua/idempotency. `key` is a name that `redis_keys.idempotency` made.


def hold_key(
    key: str, fingerprint: str, *, job_id: str, queue: str, times: KeyTimes
) -> ScriptCall[HoldReply | None]:
    """Hold a key for a job in a queue, or return the job that has it.

    With an empty `queue` the key is only read: None if it has no job.
    """
    args: list[Argument] = [fingerprint, job_id, queue, *times, redis_keys.record("*")]
    return ScriptCall(load("idempotency/hold"), [key, redis_keys.IDEMPOTENCY], args, _hold_reply)


def release_key(key: str, job_id: str) -> ScriptCall[bool]:
    """Delete a key whose job was refused; false if the job was accepted by another request."""
    keys = [key, redis_keys.IDEMPOTENCY, redis_keys.record(job_id)]
    return ScriptCall(load("idempotency/release"), keys, [job_id], bool)


def renew_keys(times: KeyTimes, limit: int) -> ScriptCall[int]:
    """Renew up to `limit` keys that are due: each lives as long as its job's record.

    Returns how many were due.
    """
    args: list[Argument] = [*times, limit, redis_keys.record("*")]
    return ScriptCall(load("idempotency/renew"), [redis_keys.IDEMPOTENCY], args, int)


def _hold_reply(reply: Any) -> HoldReply | None:
    return (
        HoldReply(
            reply[0].decode(errors="replace"), reply[1].decode(errors="replace"), int(reply[2])
        )
        if reply
        else None
    )
