"""Scripts of stored files: their records, and how long the storage keeps them (relay/lua/files)."""

from typing import Any

from contract import redis_keys
from contract.batches import StoredFile
from contract.wire import encode
from relay.connection import ScriptCall
from relay.scripts.loader import load


def create(file: StoredFile, name: str, ttl_s: float) -> ScriptCall[float]:
    """Write a file's record, unless it exists; it and the bytes at `name` live for `ttl_s` seconds.

    Returns when the record was created (unix seconds).
    """
    return ScriptCall(
        load("files/create"), _keys(file), [file.id, name, encode(file), ttl_s], float
    )


def delete(file: StoredFile, name: str) -> ScriptCall[bool]:
    """Delete a file's record; the bytes at `name` are due at once. False if there is none."""
    return ScriptCall(load("files/delete"), _keys(file), [file.id, name], bool)


def keep(name: str, keep_s: float) -> ScriptCall[bool]:
    """Write down that something is stored at `name`, and is not due for `keep_s` seconds."""
    return ScriptCall(load("files/keep"), [redis_keys.STORED], [name, keep_s], bool)


def due(limit: int, claim_s: float) -> ScriptCall[list[str]]:
    """Claim up to `limit` names to delete now; no other caller gets them for `claim_s` seconds."""
    keys = [redis_keys.STORED, redis_keys.HELD]
    return ScriptCall(load("files/due"), keys, [limit, claim_s], _names)


def _keys(file: StoredFile) -> list[str]:
    return [redis_keys.file(file.id), redis_keys.files(file.tenant), redis_keys.STORED]


def _names(reply: Any) -> list[str]:
    return [name.decode() for name in reply]
