"""Files: their records, and the index of all names in the file storage. The shim stores the bytes.

A shim that stores something adds its name to the index first, with a time to delete it; then it
writes the bytes, and the record last. So a shim that dies in between leaves nothing behind: any
shim deletes what is due (`due`, `forget`). The input of a batch is held until the batch cannot need
it any more, even if its file is deleted meanwhile. Each script may be run twice.
"""

import re
from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple

from contract import redis_keys
from contract.batches import FilePage, Purpose, StoredFile
from contract.errors import FileQuotaFull, RelayFull, StorageUnavailable, UnknownFile
from contract.tenants import Tenant
from contract.wire import decode, encode, number
from relay.connection import Argument, Connection, ScriptCall
from relay.scripts.loader import load
from relay.turns.list_turns import list_turns

Order = Literal["asc", "desc"]

WRITING_S: Final = 3600
"""Seconds that bytes without a record are kept; a writer calls `keep` more often than that."""
_CLAIM_S: Final = 300
_AT_ONCE: Final = 20
_UNCLAIMED: Final = 1000
"""Names that are deleted unclaimed in one pass."""
_STORED_NAME: Final = re.compile(r"(files|batches)(/[A-Za-z0-9_-][A-Za-z0-9_.-]*){1,2}", re.ASCII)
"""Of an object, or of a batch's parts."""
_TENANT: Final = 0
_ALL: Final = -1
_SHARE: Final = -2
_NUMBER: Final = -3
_MOST_FILES: Final = 100_000
_INDEX: Final = (redis_keys.STORED, redis_keys.FILE_SIZES, redis_keys.FILE_BYTES)
_GONE: Final = [None, None, None]
_PAGE: Final = 100
_FULL_S: Final = 60.0
_LONGEST_SCAN: Final = 10_000


class FileBounds(NamedTuple):
    """How many bytes of files may be stored."""

    tenant_bytes: int
    """Of one tenant."""
    all_bytes: int
    share: float = 1.0
    """The part that one tenant may have of what it has and what is free."""
    free_bytes: int | None = None
    """Bytes that the disk has room for; None if that is not known."""
    tenant_files: int = _MOST_FILES
    """How many files of one tenant, however small: each is a record in Redis."""


class StoredBytes(NamedTuple):
    """How many bytes of files are stored, and how many files."""

    all_bytes: int
    by_tenant: dict[str, int]
    files_by_tenant: dict[str, int]


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
        async with list_turns().turn(tenant.name):
            for at in range(start, start + _LONGEST_SCAN, _PAGE):
                ids = await ids_from(self._connection, index, at, _PAGE, order)
                fields = await self._fields(ids)
                gone += [id for id, each in zip(ids, fields, strict=True) if each == _GONE]
                records = (self._read(id, each) for id, each in zip(ids, fields, strict=True))
                found += [file for file in records if file and purpose in {None, file.purpose}]
                if len(found) > limit or len(ids) < _PAGE:
                    break
        if gone:
            await self._connection.command("ZREM", index, *gone)
        return FilePage(files=tuple(found[:limit]), has_more=len(found) > limit)

    async def _found(self, ids: Sequence[str]) -> list[StoredFile | None]:
        answers = await self._fields(ids)
        return [self._read(id, each) for id, each in zip(ids, answers, strict=True)]

    async def _fields(self, ids: Sequence[str]) -> list[list[bytes | None] | None]:
        """The fields of records, `_GONE` for one that is; None for another type of key."""
        return await self._connection.replies(
            [("HMGET", redis_keys.file(id), "json", "created_at", "expires_at") for id in ids]
        )

    def _read(self, file_id: str, fields: list[bytes | None] | None) -> StoredFile | None:
        if fields is not None:
            with self._connection.passing_over(redis_keys.file(file_id)):
                return _file(fields)
        return None

    async def keep(self, name: str, keep_s: float = WRITING_S) -> None:
        """Do not delete this name in the storage for `keep_s` seconds; raises RelayUnavailable."""
        await self._connection.call(keep_name(name, keep_s))

    async def reserve(self, name: str, tenant: str, size_bytes: int, bounds: FileBounds) -> None:
        """Count an object with so many bytes while it is written, and keep it as `keep` does.

        Raises FileQuotaFull, StorageUnavailable if all files have as many bytes as they may, and
        RelayUnavailable.
        """
        call = reserve_bytes(name, tenant, size_bytes, bounds)
        whose, held_bytes, limit_bytes = await self._connection.call(call)
        if whose in {_TENANT, _SHARE}:
            setting = "FLEET_TENANT_FILES_BYTES" if whose == _TENANT else _OF_WHAT_IS_FREE
            raise _quota_full(tenant, size_bytes, held_bytes, limit_bytes, setting)
        if whose == _NUMBER:
            raise _too_many(tenant, held_bytes, limit_bytes)
        if whose == _ALL:
            raise _storage_full(size_bytes, held_bytes, limit_bytes)

    async def stored_bytes(self) -> StoredBytes:
        """How many bytes are stored, of all and of each tenant; raises RelayUnavailable."""
        (reply,) = await self._connection.replies([("HGETALL", redis_keys.FILE_BYTES)])
        found: dict[str, int] = {}
        for name, size in (reply or {}).items():
            with self._connection.passing_over(redis_keys.FILE_BYTES):
                found[name.decode()] = int(number(size))
        return StoredBytes(
            found.get("all", 0),
            {name.removeprefix("="): size for name, size in found.items() if name.startswith("=")},
            {
                name.removeprefix("#"): count
                for name, count in found.items()
                if name.startswith("#")
            },
        )

    async def is_held(self, name: str) -> bool:
        """Whether a batch reads an object, so that it must not be deleted yet.

        Raises RelayUnavailable.
        """
        until = await self._connection.command("ZSCORE", redis_keys.HELD, name)
        return until is not None and float(until) > self._connection.now()

    async def due(self) -> list[str]:
        """Claim names in the storage that are due; the caller deletes them.

        While Redis can only be read they are not claimed: several shims may delete the same, which
        makes the room that Redis waits for. Raises RelayUnavailable.
        """
        try:
            return self._sound(await self._connection.call(claim_due(_AT_ONCE, _CLAIM_S)))
        except RelayFull:
            now = f"{self._connection.now():.3f}"
            words = ("ZRANGEBYSCORE", redis_keys.STORED, "-inf", now, "LIMIT", 0, _UNCLAIMED)
            names = self._sound(_names(await self._connection.command(*words)))
            return [name for name in names if not await self.is_held(name)]

    def _sound(self, names: list[str]) -> list[str]:
        """Those that the fleet gives: an empty one would be the whole storage."""
        for name in names:
            if not _STORED_NAME.fullmatch(name):
                why = ValueError(f"{name[:80]!r} is no name in the storage: it is not deleted")
                self._connection.pass_over(redis_keys.STORED, why)
        return [name for name in names if _STORED_NAME.fullmatch(name)]

    async def forget(self, name: str) -> None:
        """Remove a name that was deleted from the index; raises RelayUnavailable."""
        await self._connection.call(forget_name(name))


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
    return [member.decode(errors="replace") for member in members]


def stored_name(file_id: str) -> str:
    """The name of a file's bytes in the storage."""
    return f"files/{file_id}"


_OF_WHAT_IS_FREE: Final = "FLEET_TENANT_SHARE of what they have and what is free"


def _quota_full(
    tenant: str, size_bytes: int, held_bytes: int, limit_bytes: int, setting: str
) -> FileQuotaFull:
    return FileQuotaFull(
        f"the files of tenant {tenant} have {mib(held_bytes)}, this one {mib(size_bytes)}, and may "
        f"have {mib(limit_bytes)} together ({setting}): delete files, or let them "
        "expire sooner with expires_after",
        held=held_bytes,
        limit=limit_bytes,
    )


def _too_many(tenant: str, held: int, limit: int) -> FileQuotaFull:
    return FileQuotaFull(
        f"tenant {tenant} has {held:,} files, results of batches included, and may have {limit:,} "
        "(FLEET_TENANT_FILES): delete files, or let them expire sooner with expires_after",
        held=held,
        limit=limit,
    )


def _storage_full(size_bytes: int, held_bytes: int, limit_bytes: int) -> StorageUnavailable:
    return StorageUnavailable(
        f"all stored files have {mib(held_bytes)}, this one {mib(size_bytes)}, and may have "
        f"{mib(limit_bytes)} together (FLEET_FILES_BYTES): try again when files were deleted",
        retry_after_s=_FULL_S,
        held=held_bytes,
        limit=limit_bytes,
    )


def mib(size_bytes: int) -> str:
    """A number of bytes in words, as in `12.5 MiB`."""
    return f"{size_bytes / 2**20:,.1f} MiB"


def no_file(file_id: str) -> UnknownFile:
    """The error for a file that does not exist or belongs to another tenant."""
    return UnknownFile(f"there is no file {file_id[:64]}: it was deleted, has expired or never was")


def _file(answer: Any) -> StoredFile | None:
    json, created_at, expires_at = answer
    if json is None:
        return None
    times = {"created_at": number(created_at), "expires_at": number(expires_at)}
    return decode(StoredFile, json).model_copy(update=times)


# Scripts of relay/lua/files.


def create_record(file: StoredFile, name: str, ttl_s: float) -> ScriptCall[float]:
    """Write a file's record, unless it exists; it and the bytes at `name` live for `ttl_s` seconds.

    Returns when the record was created (unix seconds).
    """
    args: list[Argument] = [file.id, name, encode(file), ttl_s, file.counted_bytes]
    return ScriptCall(load("files/create"), _keys(file), args, float)


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


def reserve_bytes(
    name: str, tenant: str, size_bytes: int, bounds: FileBounds
) -> ScriptCall[tuple[int, int, int]]:
    """Count `name` with so many bytes, unless a bound would be exceeded.

    Returns 1; or 0 (the tenant's), -1 (of all) or -2 (the share) with the bytes that are counted
    without it and how many there may be; or -3 with how many files the tenant has, and may have.
    """
    free: Argument = "" if bounds.free_bytes is None else bounds.free_bytes
    args: list[Argument] = [name, WRITING_S, tenant, size_bytes, *bounds[:3], free]
    args.append(bounds.tenant_files)
    return ScriptCall(load("files/reserve"), list(_INDEX), args, _reserved)


def forget_name(name: str) -> ScriptCall[bool]:
    """Remove `name` from the index, and its bytes from what is counted."""
    return ScriptCall(load("files/forget"), list(_INDEX), [name], bool)


def let_go(now: str, names: Sequence[str | bytes]) -> ScriptCall[bool]:
    """Have objects deleted now, also those that batches read, if they are in the index."""
    keys = [redis_keys.STORED, redis_keys.HELD]
    return ScriptCall(load("files/let_go"), keys, [now, *names], bool)


def _keys(file: StoredFile) -> list[str]:
    return [redis_keys.file(file.id), redis_keys.files(file.tenant), *_INDEX]


def _reserved(reply: Any) -> tuple[int, int, int]:
    whose, held_bytes, limit_bytes = (*map(int, reply), 0, 0)[:3]
    return whose, held_bytes, limit_bytes


def _names(reply: Any) -> list[str]:
    return [name.decode(errors="replace") for name in reply]
