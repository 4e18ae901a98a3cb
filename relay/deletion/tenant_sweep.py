"""One sweep over the keys of Redis that deletes what one tenant has, page by page.

Names of keys tell most of it; of jobs, files and batches the record does. A page is a few hundred
keys, so Redis is never blocked, and other tenants' jobs go on between two. What is written behind
the sweep's back is found by the next one: SCAN shows every key that was there throughout.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from contract import redis_keys
from contract.batches import BATCH_ID, ENDED, Batch
from contract.conversations import conversation_id
from contract.errors import BatchEnded, JobNotFound, NewerVersion, UnknownBatch, UnknownFile
from contract.events import LAST_WORDS
from contract.tenants import Tenant
from relay.batches import BatchStore, parts_name
from relay.connection import Argument, Connection
from relay.deletion.tenant_deletions import TenantDeletions, erase
from relay.files import Files, let_go, stored_name
from relay.queue import Queue
from relay.usage.settlement import Settlement

REASON: Final = "its tenant was deleted"
_PAGE: Final = 500
_JOB: Final = re.compile(r"^fleet:j:([0-9a-f]{32}):record$")
_FILE: Final = re.compile(r"^fleet:file:([^:]+)$")
_BATCH: Final = re.compile(r"^fleet:batch:([^:]+)$")
_INDEXES: Final = (
    redis_keys.LIVE, redis_keys.DEADLINES, redis_keys.RECENT, redis_keys.DEAD, redis_keys.BLOCKED,
    redis_keys.PARENTS, redis_keys.FOLLOWED, redis_keys.MOVABLE, redis_keys.UNCOMPACTED,
)  # fmt: skip
"""Lists of all tenants' jobs."""
_SETTLE_S: Final = 1.0


class TenantSweep:
    """Deletes what a tenant has in Redis."""

    def __init__(self, connection: Connection, queue: Queue, tenant: str, *, usage: bool) -> None:
        """For one tenant; `usage`: whether its ledger is deleted, too."""
        self._connection, self._queue = connection, queue
        self._tenant, self._usage = tenant, usage
        self._deletions = TenantDeletions(connection)
        self._batches, self._files = BatchStore(connection), Files(connection)
        self._settlement = Settlement(connection)
        self._admin = Tenant(name=tenant, admin=True)
        self._named = _patterns(tenant)

    async def page(self, cursor: str) -> tuple[str, int]:
        """Delete what one page of keys has of the tenant.

        Returns the cursor of the next page, `0` after the last one, and how much was found. Raises
        RelayUnavailable.
        """
        words = ("SCAN", cursor, "MATCH", "fleet:*", "COUNT", _PAGE)
        following, found = await self._connection.command(*words)
        names = [name.decode(errors="replace") for name in found]
        done = await self._by_name(names)
        done += await self._batches_in([m[1] for name in names if (m := _BATCH.match(name))])
        done += await self._files_in([m[1] for name in names if (m := _FILE.match(name))])
        done += await self._jobs_in([m[1] for name in names if (m := _JOB.match(name))])
        if self._usage:
            days = [name for name in names if name.startswith("fleet:usage:")]
            await self._connection.pipeline([("SREM", day, self._tenant) for day in days])
        text = following.decode() if isinstance(following, bytes) else str(following)
        return text, done

    async def _by_name(self, names: Sequence[str]) -> int:
        by_kind: dict[str, list[str]] = defaultdict(list)
        for name in names:
            kind = next((kind for kind, pattern in self._named if pattern.match(name)), None)
            if kind is not None and (kind != "usage" or self._usage):
                by_kind[kind].append(name)
        keys = by_kind.get("idempotency_keys")
        if keys:
            await self._connection.command("ZREM", redis_keys.IDEMPOTENCY, *keys)
        calls = [erase(self._tenant, kind, keys) for kind, keys in by_kind.items()]
        return sum(await self._connection.calls(calls))

    async def _jobs_in(self, ids: Sequence[str]) -> int:
        records = await self._connection.replies(
            [
                ("HMGET", redis_keys.record(id), "tenant", "status", "conversation", "queue")
                for id in ids
            ]
        )
        own = [
            (id, fields)
            for id, fields in zip(ids, records, strict=True)
            if fields and fields[0] == self._tenant.encode()
        ]
        if not own:
            return 0
        for id, (_, status, *_rest) in own:
            if status is not None and status.decode() not in LAST_WORDS:
                await self._cancel(id)
        await self._settlement.settle(_SETTLE_S)  # it reads the logs
        return await self._forget(own)

    async def _cancel(self, job_id: str) -> None:
        with suppress(JobNotFound):
            try:
                await self._queue.cancel(job_id, by="admin", reason=REASON)
            except NewerVersion:  # or damaged: it goes, whatever it says
                await self._queue.remove_unread(job_id, self._tenant)
            await self._deletions.count(self._tenant, "jobs_cancelled")

    async def _forget(self, jobs: Sequence[tuple[str, Any]]) -> int:
        ids = [id for id, _ in jobs]
        logs = [key for id in ids for key in (redis_keys.log(id), redis_keys.audience(id))]
        logs += [redis_keys.children(id) for id in ids]
        commands: list[tuple[Argument, ...]] = [("ZREM", index, *ids) for index in _INDEXES]
        commands += self._without_conversations(jobs)
        await self._connection.pipeline([("UNLINK", *logs), *commands])
        # The records last: without them nobody knows whose the rest was.
        call = erase(self._tenant, "jobs", [redis_keys.record(id) for id in ids])
        return await self._connection.call(call)

    def _without_conversations(self, jobs: Sequence[tuple[str, Any]]) -> list[tuple[str, ...]]:
        found = {(fields[2], fields[3]) for _, fields in jobs if fields[2] is not None}
        commands = []
        for name, queue_name in found:
            id = conversation_id(self._tenant, name.decode(errors="replace"))
            queue = (queue_name or b"").decode()
            commands += [
                ("UNLINK", redis_keys.turns(id)),
                ("UNLINK", redis_keys.homes_of(queue, self._tenant)),
                ("HDEL", redis_keys.homes(queue), id),
                ("ZREM", redis_keys.homes_used(queue), id),
            ]
        return commands

    async def _files_in(self, ids: Sequence[str]) -> int:
        done = 0
        for id in ids:
            with suppress(UnknownFile), self._connection.passing_over(redis_keys.file(id)):
                file = await self._files.get_for_tenant(id, self._admin)
                if file.tenant == self._tenant:
                    await self._files.delete(file)
                    await self._deletions.count(self._tenant, "files")
                    done += 1
        return done

    async def _batches_in(self, ids: Sequence[str]) -> int:
        own = [batch for id in ids if (batch := await self._own_batch(id)) is not None]
        ended = []
        for batch in own:
            with self._connection.passing_over(redis_keys.batch(batch.id)):
                if await self._has_ended(batch):
                    ended.append(batch)
        read = await self._inputs_read() if ended else set()
        # Another batch that is cancelled reads the same input until its end.
        free = [batch for batch in ended if batch.input_file_id not in read]
        return len(own) - len(free) + sum([await self._forget_batch(batch) for batch in free])

    async def _own_batch(self, batch_id: str) -> Batch | None:
        if BATCH_ID.match(batch_id):
            with suppress(UnknownBatch), self._connection.passing_over(redis_keys.batch(batch_id)):
                batch = await self._batches.get_for_tenant(batch_id, self._admin)
                return batch if batch.tenant.name == self._tenant else None
        return None

    async def _has_ended(self, batch: Batch) -> bool:
        """Cancel a batch; whether its driver has ended it."""
        with suppress(BatchEnded):
            return (await self._batches.cancel(batch)).status != "cancelling"
        return True

    async def _inputs_read(self) -> set[str]:
        """Ids of the files that the tenant's batches still read."""
        ids = await self._connection.command("ZRANGE", redis_keys.BATCHES, 0, -1)
        found = [await self._own_batch(id.decode(errors="replace")) for id in ids]
        return {it.input_file_id for it in found if it is not None and it.status not in ENDED}

    async def _forget_batch(self, batch: Batch) -> int:
        """Delete a batch that has ended. Returns 1, or 0 if it is deleted already."""
        # Its input may have been deleted before, and be kept for it alone.
        await self._let_go([parts_name(batch.id), stored_name(batch.input_file_id)])
        keys = [redis_keys.batch_rows(batch.id), redis_keys.batch_parts(batch.id)]
        await self._connection.command("UNLINK", *keys)
        await self._connection.command("ZREM", redis_keys.BATCHES, batch.id)
        call = erase(self._tenant, "batches", [redis_keys.batch(batch.id)])
        return await self._connection.call(call)

    async def objects(self) -> int:
        """Have the bytes of the tenant's files deleted. Returns how many objects are left.

        What a batch reads that is being cancelled stays until that has ended: its driver would try
        again and again for minutes. Raises RelayUnavailable.
        """
        cursor, left = "0", 0
        read = {stored_name(id).encode() for id in await self._inputs_read()}
        owner = b" " + self._tenant.encode()
        while True:
            words = ("HSCAN", redis_keys.FILE_SIZES, cursor, "COUNT", _PAGE)
            following, found = await self._connection.command(*words)
            names = [name for name, value in _fields(found) if value.endswith(owner)]
            await self._let_go([name for name in names if name not in read])
            left += len(names)
            cursor = following.decode() if isinstance(following, bytes) else str(following)
            if cursor == "0":
                return left

    async def _let_go(self, names: Sequence[str | bytes]) -> None:
        """Have objects of the storage deleted now, also those that batches read."""
        if names:
            await self._connection.call(let_go(f"{self._connection.now():.3f}", names))


def _fields(found: Any) -> list[tuple[bytes, bytes]]:
    if isinstance(found, dict):
        return list(found.items())
    return list(zip(found[::2], found[1::2], strict=True))


def _patterns(tenant: str) -> tuple[tuple[str, re.Pattern[str]], ...]:
    """Kinds of what a receipt counts, and the names of their keys; the first that fits counts."""
    name = re.escape(tenant)
    kinds = {
        "usage": rf"fleet:t:{name}:(usage:.*|spending|reserved)",
        "webhook_secrets": rf"fleet:t:{name}:webhook:secrets",
        "lists": rf"fleet:t:{name}:.*",
        "idempotency_keys": rf"fleet:idempotency:{name}:.*",
        "webhook_queues": rf"fleet:webhook:{name}/.*",
        "vectors": rf"fleet:vector:[^:]*:{name}:.*",
        "shared_pulls": rf"fleet:q:[^:]*:single:{name}:.*",
    }
    return tuple((kind, re.compile(f"^{text}$", re.DOTALL)) for kind, text in kinds.items())
