"""Scripts of dead letters: the three steps of a retry, and the purge (relay/lua/dead_letters)."""

from typing import Any

from contract import redis_keys
from contract.jobs import JobRecord
from relay.connection import ScriptCall
from relay.scripts.loader import load


def choose_retry(job_id: str, new_id: str) -> ScriptCall[tuple[str, bool] | None]:
    """Choose the job that repeats a dead one: `new_id`, unless one was chosen before.

    Returns its id, and whether it may still have to be enqueued; None: the job is no dead letter.
    """
    return ScriptCall(load("dead_letters/choose_retry"), _listed(job_id), [job_id, new_id], _choice)


def confirm_retry(job_id: str, chosen_id: str, new_id: str) -> ScriptCall[bool]:
    """Take a dead letter off the list: its retry was enqueued as `new_id`."""
    args = [job_id, chosen_id, new_id]
    return ScriptCall(load("dead_letters/confirm_retry"), _listed(job_id), args, bool)


def withdraw_retry(job_id: str, new_id: str) -> ScriptCall[bool]:
    """Let the next retry choose again; false if `new_id` was accepted or is not the chosen one."""
    keys = [redis_keys.record(job_id), redis_keys.record(new_id)]
    return ScriptCall(load("dead_letters/withdraw_retry"), keys, [new_id], bool)


def purge(record: JobRecord) -> ScriptCall[int]:
    """Delete a dead letter for good. Returns 1; 0 if the job is none."""
    keys = [
        redis_keys.record(record.id), redis_keys.log(record.id), redis_keys.DEAD, redis_keys.RECENT,
        redis_keys.recent(record.tenant),
    ]  # fmt: skip
    return ScriptCall(load("dead_letters/purge"), keys, [record.id], int)


def _listed(job_id: str) -> list[str]:
    return [redis_keys.record(job_id), redis_keys.DEAD]


def _choice(reply: Any) -> tuple[str, bool] | None:
    return (reply[0].decode(), bool(reply[1])) if reply else None
