"""Files: their records, and the index of all names in the file storage. The shim stores the bytes.

A shim that stores something adds its name to the index first, with a time to delete it; then it
writes the bytes, and the record last. So a shim that dies in between leaves nothing behind: any
shim deletes what is due (`due`, `forget`). The input of a batch is held until the batch cannot need
it any more, even if its file is deleted meanwhile. Each script may be run twice.
"""

from collections.abc import Sequence
from typing import Any, Final, Literal

from contract import redis_keys
from contract.batches import FilePage, Purpose, StoredFile
from contract.errors import UnknownFile
from contract.tenants import Tenant
from contract.wire import decode, encode
from relay.connection import Argument, Connection, ScriptCall
from relay.scripts.loader import load

Order = Literal["asc", "desc"]

WRITING_S: Final = 3600
"""Seconds that bytes without a record are kept; a writer calls `keep` more often than that."""
_CLAIM_S: Final = 300
_AT_ONCE: Final = 20
_PAGE: Final = 100
_LONGEST_SCAN: Final = 10_000


class Files:
    """Records of files and the index of the storage."""

    def __init__(self, connection: Connection) -> None:
        """Use this connection."""
        self._connection = connection

    async def create(self, file: StoredFile, *, ttl_s: float) -> StoredFile:
        """Write the record of a file whose bytes are stored; it lives for `ttl_s` seconds.

        Raises RelayUnavailable.
        """
        at = await self._connection.call(create_record(file, stored_name(file.id), ttl_s))
        return file.model_copy(update={"created_at": at, "expires_at": at + ttl_s})

    async def get_for_tenant(self, file_id: str, tenant: Tenant) -> StoredFile:
        """The record of a file that this tenant may see: its own; an admin sees all.

        Raises UnknownFile, with the same message for another tenant's file; RelayUnavailable.
        """
        (file,) = await self._found([file_id])
        if file is None or not (tenant.admin or file.tenant == tenant.name):
            raise no_file(file_id)
        return file

    async def delete(self, file: StoredFile) -> None:
        """Delete a record; its bytes are deleted soon.

        Raises UnknownFile if there is none; RelayUnavailable.
        """
        if not await self._connection.call(delete_record(file, stored_name(file.id))):
            raise no_file(file.id)

    async def page(
        self,
        tenant: Tenant,
        *,
        purpose: Purpose | None = None,
        limit: int,
        after: str | None = None,
        order: Order = "desc",
    ) -> FilePage:
        """The tenant's own files by creation; `after` is the last id of the page before.

        Raises UnknownFile if that is not in the list; RelayUnavailable.
        """
        index = redis_keys.files(tenant.name)
        start = await place_after(self._connection, index, after, order)
        if start is None:
            raise no_file(after or "")
        found: list[StoredFile] = []
        gone: list[str] = []
        for at in range(start, start + _LONGEST_SCAN, _PAGE):
            ids = await ids_from(self._connection, index, at, _PAGE, order)
            records = await self._found(ids)
            gone += [id for id, file in zip(ids, records, strict=True) if file is None]
            found += [file for file in records if file and purpose in {None, file.purpose}]
            if len(found) > limit or len(ids) < _PAGE:
                break
        if gone:
            await self._connection.command("ZREM", index, *gone)
        return FilePage(files=tuple(found[:limit]), has_more=len(found) > limit)

    async def _found(self, ids: Sequence[str]) -> list[StoredFile | None]:
        answers = await self._connection.pipeline(
            [("HMGET", redis_keys.file(id), "json", "created_at", "expires_at") for id in ids]
        )
        return [_file(answer) for answer in answers]

    async def keep(self, name: str, keep_s: float = WRITING_S) -> None:
        """Do not delete this name in the storage for `keep_s` seconds; raises RelayUnavailable."""
        await self._connection.call(keep_name(name, keep_s))

    async def due(self) -> list[str]:
        """Claim names in the storage that are due; the caller deletes them.

        Raises RelayUnavailable.
        """
        return await self._connection.call(claim_due(_AT_ONCE, _CLAIM_S))

    async def forget(self, name: str) -> None:
        """Remove a name that was deleted from the index; raises RelayUnavailable."""
        await self._connection.command("ZREM", redis_keys.STORED, name)


async def place_after(
    connection: Connection, index: str, after: str | None, order: Order
) -> int | None:
    """The rank that follows the member `after` in a sorted set; None if it is not a member.

    Raises RelayUnavailable.
    """
    if after is None:
        return 0
    rank = await connection.command("ZRANK" if order == "asc" else "ZREVRANK", index, after)
    return None if rank is None else int(rank) + 1


async def ids_from(
    connection: Connection, index: str, start: int, count: int, order: Order
) -> list[str]:
    """Up to `count` members of a sorted set from a rank on; raises RelayUnavailable."""
    words: list[Argument] = ["ZRANGE", index, start, start + count - 1]
    members = await connection.command(*words, *(["REV"] if order == "desc" else []))
    return [member.decode() for member in members]


def stored_name(file_id: str) -> str:
    """The name of a file's bytes in the storage."""
    return f"files/{file_id}"


def no_file(file_id: str) -> UnknownFile:
    """The error for a file that does not exist or belongs to another tenant."""
    return UnknownFile(f"there is no file {file_id[:64]}: it was deleted, has expired or never was")


def _file(answer: Any) -> StoredFile | None:
    json, created_at, expires_at = answer
    if json is None:
        return None
    times = {"created_at": float(created_at), "expires_at": float(expires_at)}
    return decode(StoredFile, json).model_copy(update=times)


# Scripts of relay/lua/files.


def create_record(file: StoredFile, name: str, ttl_s: float) -> ScriptCall[float]:
    """Write a file's record, unless it exists; it and the bytes at `name` live for `ttl_s` seconds.

    Returns when the record was created (unix seconds).
    """
    return ScriptCall(
        load("files/create"), _keys(file), [file.id, name, encode(file), ttl_s], float
    )


def delete_record(file: StoredFile, name: str) -> ScriptCall[bool]:
    """Delete a file's record; the bytes at `name` are due at once. False if there is no record."""
    return ScriptCall(load("files/delete"), _keys(file), [file.id, name], bool)


def keep_name(name: str, keep_s: float) -> ScriptCall[bool]:
    """Add `name` to the index; it is not due for `keep_s` seconds."""
    return ScriptCall(load("files/keep"), [redis_keys.STORED], [name, keep_s], bool)


def claim_due(limit: int, claim_s: float) -> ScriptCall[list[str]]:
    """Claim up to `limit` names to delete now; no other caller gets them for `claim_s` seconds."""
    keys = [redis_keys.STORED, redis_keys.HELD]
    return ScriptCall(load("files/due"), keys, [limit, claim_s], _names)


def _keys(file: StoredFile) -> list[str]:
    return [redis_keys.file(file.id), redis_keys.files(file.tenant), redis_keys.STORED]


def _names(reply: Any) -> list[str]:
    return [name.decode() for name in reply]
