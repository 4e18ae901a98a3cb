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
from relay.scripts import idempotency

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
        held = await self._connection.call(
            idempotency.hold(
                key.name, key.fingerprint, job_id=uuid4().hex, queue=queue, times=self._times
            )
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
        await self._connection.call(idempotency.settle(key.name, hold.job_id, job_id))

    async def let_go(self, key: Key, hold: Hold) -> None:
        """Free the key of a request that was refused; raises RelayUnavailable."""
        await self._connection.call(idempotency.release(key.name, hold.job_id))

    async def renew(self) -> None:
        """Keep keys as long as their jobs' records, look once; raises RelayUnavailable."""
        await self._connection.call(idempotency.renew(self._times, _AT_ONCE))

    @property
    def _times(self) -> idempotency.KeyTimes:
        log_ttl_s = self._connection.settings.log_ttl_s
        return idempotency.KeyTimes(int(log_ttl_s + _UNATTENDED_S), log_ttl_s / 2)
