"""Files' records, and the list of what lies in the file storage. The bytes are the shim's business.

Whoever is about to store something writes its name down first, with a time to delete it; only then
come the bytes, and the record last. So a shim that dies in between leaves nothing behind: any shim
deletes what is due (`due`, `forget`). What a batch reads is held until the batch cannot need it any
more, also if its file is deleted meanwhile. Each script may be run twice.
"""

from collections.abc import Sequence
from typing import Any, Final, Literal

from contract import redis_keys
from contract.batches import FilePage, Purpose, StoredFile
from contract.errors import UnknownFile
from contract.tenants import Tenant
from contract.wire import decode, encode
from relay.connection import Argument, Connection

Order = Literal["asc", "desc"]

REGISTER: Final = """
local function exact(at) return string.format('%.6f', at) end
local function listed(index, at, id, keep_s)
    redis.call('ZADD', index, exact(at), id)
    redis.call('ZREMRANGEBYRANK', index, 0, -100001)
    if redis.call('TTL', index) < keep_s then
        redis.call('EXPIRE', index, string.format('%d', keep_s))
    end
end
local function register(file, index, stored, id, name, json, ttl_s, now)
    local at = redis.call('HGET', file, 'created_at')
    if at then return at end
    redis.call('HSET', file, 'created_at', exact(now), 'expires_at', exact(now + ttl_s),
               'json', json)
    redis.call('EXPIRE', file, string.format('%d', math.ceil(ttl_s)))
    redis.call('ZADD', stored, exact(now + ttl_s), name)
    listed(index, now, id, math.ceil(ttl_s) + 86400)
    return exact(now)
end
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
"""
"""What scripts share that make files: theirs here, and a batch's end (relay/batches.py)."""

CREATE: Final = (
    "#!lua\n"
    + REGISTER
    + """
-- KEYS file index stored; ARGV id name json ttl_s
return register(KEYS[1], KEYS[2], KEYS[3], ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), now)
"""
)
"""Write a record whose bytes are there. Returns when it was created."""

DELETE: Final = """#!lua flags=allow-oom
-- KEYS file index stored; ARGV id name
local time = redis.call('TIME')
local there = redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
if there == 1 then redis.call('ZADD', KEYS[3], time[1], ARGV[2]) end
return there
"""
"""Forget a record; its bytes are due. Returns 1 if it was there."""

KEEP: Final = """
-- KEYS stored; ARGV name keep_s
local time = redis.call('TIME')
redis.call('ZADD', KEYS[1], time[1] + ARGV[2], ARGV[1])
return 1
"""
"""Say that something is stored, or is still being written: not to be deleted for a while."""

DUE: Final = """#!lua flags=allow-oom
-- KEYS stored held; ARGV limit claim_s
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local at = string.format('%.6f', now)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', at)
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', at, 'LIMIT', 0, ARGV[1])
local free = {}
for _, name in ipairs(due) do
    local until_ = redis.call('ZSCORE', KEYS[2], name)
    redis.call('ZADD', KEYS[1], until_ or string.format('%.6f', now + ARGV[2]), name)
    if not until_ then free[#free + 1] = name end
end
return free
"""
"""Names of what is to be deleted now; nobody else is told of them for `claim_s`."""

WRITING_S: Final = 3600
"""How long bytes may lie without a record: whoever writes them says `keep` more often than that."""
_CLAIM_S: Final = 300
_AT_ONCE: Final = 20
_PAGE: Final = 100
_LONGEST_SCAN: Final = 10_000


class Files:
    """Keeps records, and knows what is stored."""

    def __init__(self, connection: Connection) -> None:
        """Work through this connection."""
        self._connection = connection

    async def create(self, file: StoredFile, *, ttl_s: float) -> StoredFile:
        """Write the record of a file whose bytes are there; raises RelayUnavailable."""
        created_at = await self._connection.run(
            CREATE,
            [redis_keys.file(file.id), redis_keys.files(file.tenant), redis_keys.STORED],
            [file.id, stored_name(file.id), encode(file), ttl_s],
        )
        at = float(created_at)
        return file.model_copy(update={"created_at": at, "expires_at": at + ttl_s})

    async def seen(self, file_id: str, tenant: Tenant) -> StoredFile:
        """The record of a file that this tenant may see: its own; an admin's sees any.

        Raises UnknownFile, also if it is somebody else's, with the same words; RelayUnavailable.
        """
        (file,) = await self._found([file_id])
        if file is None or not (tenant.admin or file.tenant == tenant.name):
            raise no_file(file_id)
        return file

    async def delete(self, file: StoredFile) -> None:
        """Forget a file; its bytes go soon. Raises UnknownFile if it was gone already."""
        gone = await self._connection.run(
            DELETE,
            [redis_keys.file(file.id), redis_keys.files(file.tenant), redis_keys.STORED],
            [file.id, stored_name(file.id)],
        )
        if not gone:
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
        """The tenant's own files by creation; `after` is the id of the last one of a page.

        Raises UnknownFile if that is not in the list.
        """
        index = redis_keys.files(tenant.name)
        start = await place_after(self._connection, index, after, order)
        if start is None:
            raise no_file(after or "")
        found: list[StoredFile] = []
        gone: list[str] = []
        for at in range(start, start + _LONGEST_SCAN, _PAGE):
            ids = await ids_from(self._connection, index, at, _PAGE, order)
            files = await self._found(ids)
            gone += [id for id, file in zip(ids, files, strict=True) if file is None]
            found += [f for f in files if f and purpose in {None, f.purpose}]
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
        """Say that this name in the storage is not to be deleted for a while."""
        await self._connection.run(KEEP, [redis_keys.STORED], [name, keep_s])

    async def due(self) -> list[str]:
        """Names in the storage that are to be deleted now, by whoever asked."""
        found = await self._connection.run(
            DUE, [redis_keys.STORED, redis_keys.HELD], [_AT_ONCE, _CLAIM_S]
        )
        return [name.decode() for name in found]

    async def forget(self, name: str) -> None:
        """Say that a name is not in the storage any more."""
        await self._connection.command("ZREM", redis_keys.STORED, name)


async def place_after(
    connection: Connection, index: str, after: str | None, order: Order
) -> int | None:
    """The rank in a list at which what comes after a member begins; None if it is not in it."""
    if after is None:
        return 0
    rank = await connection.command("ZRANK" if order == "asc" else "ZREVRANK", index, after)
    return None if rank is None else int(rank) + 1


async def ids_from(
    connection: Connection, index: str, start: int, count: int, order: Order
) -> list[str]:
    """Members of a list from a rank on."""
    words: list[Argument] = ["ZRANGE", index, start, start + count - 1]
    members = await connection.command(*words, *(["REV"] if order == "desc" else []))
    return [member.decode() for member in members]


def stored_name(file_id: str) -> str:
    """Where a file's bytes lie in the storage."""
    return f"files/{file_id}"


def no_file(file_id: str) -> UnknownFile:
    """The error for a file that is not there, or not the caller's."""
    return UnknownFile(f"there is no file {file_id[:64]}: it was deleted, has expired or never was")


def _file(answer: Any) -> StoredFile | None:
    json, created_at, expires_at = answer
    if json is None:
        return None
    times = {"created_at": float(created_at), "expires_at": float(expires_at)}
    return decode(StoredFile, json).model_copy(update=times)
