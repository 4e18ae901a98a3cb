"""Messages that no worker can read: kept with their bytes, counted, and shown, within bounds.

A queue's list is Celery's, and whoever may write to Redis may write to it. What is neither a ticket
nor a job must not stop a worker, and must not vanish either.
"""

import base64
from typing import Any, Final

from contract import redis_keys
from contract.jobs import DeadMessage, DeadMessages, DeadPurged
from relay.connection import Connection
from relay.scripts import messages

KEPT_BYTES: Final = 64 * 1024
"""Of one message."""
_KEPT: Final = 1000
"""Messages."""


class Unreadable:
    """Both ends of what was set aside; raises RelayUnavailable."""

    def __init__(self, connection: Connection) -> None:
        """Work through this connection."""
        self._connection = connection

    async def put(
        self, queue: str, *, reason: str, size_bytes: int, data: bytes, job_id: str | None = None
    ) -> None:
        """Keep the beginning of a message, of which `size_bytes` were there."""
        ttl_s = int(self._connection.settings.dead_ttl_s)
        await self._connection.call(
            messages.keep(
                queue,
                data[:KEPT_BYTES],
                reason=reason,
                size_bytes=size_bytes,
                job_id=job_id or "",
                limit=_KEPT,
                ttl_s=ttl_s,
            )
        )

    async def page(self, *, limit: int = 100) -> DeadMessages:
        """The newest first."""
        entries, counts = await self._connection.pipeline(
            [
                ("XREVRANGE", redis_keys.UNREADABLE, "+", "-", "COUNT", limit),
                ("HVALS", redis_keys.UNREADABLE_COUNTS),
            ]
        )
        return DeadMessages(
            messages=tuple(_message(entry) for entry in entries),
            total=sum(int(count) for count in counts),
        )

    async def count(self) -> int:
        """How many are kept."""
        return int(await self._connection.command("XLEN", redis_keys.UNREADABLE))

    async def purge(self) -> DeadPurged:
        """Forget all of them."""
        kept, _ = await self._connection.pipeline(
            [
                ("XLEN", redis_keys.UNREADABLE),
                ("DEL", redis_keys.UNREADABLE, redis_keys.UNREADABLE_COUNTS),
            ]
        )
        return DeadPurged(purged=int(kept))


def _message(entry: Any) -> DeadMessage:
    id, fields = entry[0].decode(), entry[1]
    return DeadMessage(
        id=id,
        queue=fields[b"queue"].decode(),
        at=int(id.partition("-")[0]) / 1000,
        reason=fields[b"reason"].decode(),
        size_bytes=int(fields[b"size_bytes"]),
        data=base64.b64encode(fields[b"data"]).decode("ascii"),
        job_id=fields[b"job_id"].decode() or None,
    )
