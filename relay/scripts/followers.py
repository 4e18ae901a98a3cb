"""Scripts of a job's followers (relay/lua/followers).

A job that has ended, or whose policy is `continue`, has none: each script forgets them then and
answers none or false.
"""

from collections.abc import Sequence
from typing import Any

from contract import redis_keys
from contract.requests import OnDisconnect, disconnect_text
from relay.connection import Argument, ScriptCall
from relay.scripts.loader import load


def expect(job_id: str, grace_s: float) -> ScriptCall[bool]:
    """Start the clock of a job without followers: `grace_s` seconds until the first must be there.

    Returns False if a clock runs already, or if the job has followers.
    """
    return ScriptCall(load("followers/expect"), [redis_keys.FOLLOWED], [job_id, grace_s], bool)


def attend(job_id: str, process: str, lease_s: float) -> ScriptCall[bool]:
    """Add a process to a job's followers for `lease_s` seconds, which stops the job's clock."""
    args: list[Argument] = [job_id, process, lease_s]
    return ScriptCall(load("followers/attend"), _keys(job_id), args, bool)


def leave(job_id: str, process: str, grace_s: float | None) -> ScriptCall[float | None]:
    """Remove a process from a job's followers.

    Returns the seconds until the job is cancelled, if this has started its clock: those of its
    `cancel_after_s`, or `grace_s`. `grace_s` is None if to leave is no disconnect.
    """
    args: list[Argument] = [job_id, process, "" if grace_s is None else grace_s]
    return ScriptCall(load("followers/leave"), _keys(job_id), args, _seconds)


def renew(process: str, lease_s: float, job_ids: Sequence[str]) -> ScriptCall[list[str]]:
    """Renew the leases of a process. Returns the ids of jobs that it has none on."""
    keys = [redis_keys.FOLLOWED, *(redis_keys.audience(job_id) for job_id in job_ids)]
    return ScriptCall(load("followers/renew"), keys, [process, lease_s, *job_ids], _ids)


def is_left(job_id: str) -> ScriptCall[bool]:
    """Whether a job's clock has run out. The clock of an expired lease starts when it expired."""
    return ScriptCall(load("followers/is_left"), _keys(job_id), [job_id], bool)


def relax(job_id: str, policy: OnDisconnect) -> ScriptCall[bool]:
    """Set a job's policy if this one is more lenient. Returns whether it was."""
    patience_s = "" if isinstance(policy, str) else policy.cancel_after_s
    args: list[Argument] = [job_id, disconnect_text(policy), patience_s]
    return ScriptCall(load("followers/relax"), _keys(job_id), args, bool)


def _keys(job_id: str) -> list[str]:
    return [redis_keys.record(job_id), redis_keys.audience(job_id), redis_keys.FOLLOWED]


def _seconds(reply: Any) -> float | None:
    return float(reply) if reply else None


def _ids(reply: Any) -> list[str]:
    return [job_id.decode() for job_id in reply]
