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
from relay.connection import Argument, Connection, ScriptCall
from relay.scripts.loader import load

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


class KeyTimes(NamedTuple):
    """How long a key of a job that has not ended lives, and when it is looked at next."""

    ttl_s: int
    look_s: float


class HoldReply(NamedTuple):
    """What a key leads to: `state` is 1 (new), 0 (the same request) or -1 (another request)."""

    job_id: str
    queue: str
    state: int


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
        held = await self._connection.call(
            hold_key(key.name, key.fingerprint, job_id=uuid4().hex, queue=queue, times=self._times)
        )
        if held is None:
            return None
        if held.state < 0:
            raise KeyReused(
                f"the Idempotency-Key belongs to another request, which became job "
                f"{held.job_id}: send that request again, or this one with a new key"
            )
        return Hold(held.job_id, held.queue, is_new=bool(held.state))

    async def settle(self, key: Key, hold: Hold, job_id: str) -> None:
        """Say that the key leads to this job instead; raises RelayUnavailable."""
        await self._connection.call(change_job(key.name, hold.job_id, job_id))

    async def let_go(self, key: Key, hold: Hold) -> None:
        """Free the key of a request that was refused; raises RelayUnavailable."""
        await self._connection.call(release_key(key.name, hold.job_id))

    async def renew(self) -> None:
        """Keep keys as long as their jobs' records, look once; raises RelayUnavailable."""
        await self._connection.call(renew_keys(self._times, _AT_ONCE))

    @property
    def _times(self) -> KeyTimes:
        log_ttl_s = self._connection.settings.log_ttl_s
        return KeyTimes(int(log_ttl_s + _UNATTENDED_S), log_ttl_s / 2)


# Scripts of relay/lua/idempotency. `key` is a name that `redis_keys.idempotency` made.


def hold_key(
    key: str, fingerprint: str, *, job_id: str, queue: str, times: KeyTimes
) -> ScriptCall[HoldReply | None]:
    """Take a key for a job in a queue, or return what it leads to.

    With an empty `queue` the key is only read: None if it leads to nothing.
    """
    args: list[Argument] = [fingerprint, job_id, queue, *times, redis_keys.record("*")]
    return ScriptCall(load("idempotency/hold"), [key, redis_keys.IDEMPOTENCY], args, _hold_reply)


def change_job(key: str, old_job: str, new_job: str) -> ScriptCall[bool]:
    """Make a key lead to another job; false if it does not lead to `old_job`."""
    return ScriptCall(load("idempotency/settle"), [key], [old_job, new_job], bool)


def release_key(key: str, job_id: str) -> ScriptCall[bool]:
    """Delete a key whose job was refused; false if the job was accepted by another request."""
    keys = [key, redis_keys.IDEMPOTENCY, redis_keys.record(job_id)]
    return ScriptCall(load("idempotency/release"), keys, [job_id], bool)


def renew_keys(times: KeyTimes, limit: int) -> ScriptCall[int]:
    """Look at up to `limit` keys that are due: each lives as long as its job's record.

    Returns how many were due.
    """
    args: list[Argument] = [*times, limit, redis_keys.record("*")]
    return ScriptCall(load("idempotency/renew"), [redis_keys.IDEMPOTENCY], args, int)


def _hold_reply(reply: Any) -> HoldReply | None:
    return HoldReply(reply[0].decode(), reply[1].decode(), int(reply[2])) if reply else None
