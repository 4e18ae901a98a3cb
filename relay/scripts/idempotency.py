"""Scripts of idempotency keys (relay/lua/idempotency).

`key` is a key's name in Redis, as contract/redis_keys.py makes it.
"""

from typing import Any, NamedTuple

from contract import redis_keys
from relay.connection import Argument, ScriptCall
from relay.scripts.loader import load


class KeyTimes(NamedTuple):
    """How long a key of a job that has not ended lives, and when it is looked at next."""

    ttl_s: int
    look_s: float


class Held(NamedTuple):
    """What a key leads to: `state` is 1 (new), 0 (the same request) or -1 (another request)."""

    job_id: str
    queue: str
    state: int


def hold(
    key: str, fingerprint: str, *, job_id: str, queue: str, times: KeyTimes
) -> ScriptCall[Held | None]:
    """Take a key for a job in a queue, or return what it leads to.

    With an empty `queue` the key is only read: None if it leads to nothing.
    """
    args: list[Argument] = [fingerprint, job_id, queue, *times, redis_keys.record("*")]
    return ScriptCall(load("idempotency/hold"), [key, redis_keys.IDEMPOTENCY], args, _held)


def settle(key: str, old_job: str, new_job: str) -> ScriptCall[bool]:
    """Make a key lead to another job; false if it does not lead to `old_job`."""
    return ScriptCall(load("idempotency/settle"), [key], [old_job, new_job], bool)


def release(key: str, job_id: str) -> ScriptCall[bool]:
    """Delete a key whose job was refused; false if the job was accepted by another request."""
    keys = [key, redis_keys.IDEMPOTENCY, redis_keys.record(job_id)]
    return ScriptCall(load("idempotency/release"), keys, [job_id], bool)


def renew(times: KeyTimes, limit: int) -> ScriptCall[int]:
    """Look at up to `limit` keys that are due: each lives as long as its job's record.

    Returns how many were due.
    """
    args: list[Argument] = [*times, limit, redis_keys.record("*")]
    return ScriptCall(load("idempotency/renew"), [redis_keys.IDEMPOTENCY], args, int)


def _held(reply: Any) -> Held | None:
    return Held(reply[0].decode(), reply[1].decode(), int(reply[2])) if reply else None
