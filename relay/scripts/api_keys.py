"""Scripts of the table of API keys (relay/lua/api_keys)."""

from typing import Any

from contract import redis_keys
from relay.connection import Argument, Hash, ScriptCall, pairs
from relay.scripts.loader import load


def issue(
    key_id: str, entry: bytes, *, keeps: bool, revision: str, limit: int
) -> ScriptCall[bytes]:
    """Add a key; `keeps` says whether it may manage the others and does not expire.

    Returns the table's entry, `<1 or 0> <created_at> <entry>`, or why there is none: `first` (the
    first key must keep) or `full` (there are `limit`).
    """
    args: list[Argument] = [key_id, int(keeps), entry, revision, limit]
    return ScriptCall(load("api_keys/issue"), [redis_keys.KEYS], args, bytes)


def revoke(key_id: str, revision: str) -> ScriptCall[bytes | None]:
    """Delete a key. Returns its entry; None if there is none; `last` if others still need it."""
    return ScriptCall(load("api_keys/revoke"), [redis_keys.KEYS], [key_id, revision], _entry)


def read(known_revision: str) -> ScriptCall[tuple[float, str, Hash | None]]:
    """Read the table if it has changed.

    Returns Redis's time (unix seconds), the revision, and the table (id to entry, and
    `revision`); None in its place if the revision is `known_revision`.
    """
    return ScriptCall(load("api_keys/read"), [redis_keys.KEYS], [known_revision], _table)


def _entry(reply: Any) -> bytes | None:
    return bytes(reply) if reply else None


def _table(reply: Any) -> tuple[float, str, Hash | None]:
    now, revision, *table = reply
    return float(now), revision.decode(), pairs(table[0]) if table else None
