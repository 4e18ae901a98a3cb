"""The script that keeps a message which no worker can read (relay/lua/messages)."""

from contract import redis_keys
from relay.connection import Argument, ScriptCall
from relay.scripts.loader import load


def keep(
    queue: str, data: bytes, *, reason: str, size_bytes: int, job_id: str, limit: int, ttl_s: int
) -> ScriptCall[bool]:
    """Add a message to the newest `limit`, and count it; all of them expire after `ttl_s` seconds.

    `data` is the beginning of a message of `size_bytes`; `job_id` may be empty.
    """
    keys = [redis_keys.UNREADABLE, redis_keys.UNREADABLE_COUNTS]
    args: list[Argument] = [limit, ttl_s, queue, reason, size_bytes, data, job_id]
    return ScriptCall(load("messages/keep"), keys, args, bool)
