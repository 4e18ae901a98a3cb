"""Deletions of everything that a tenant has: which are under way, and their receipts.

A receipt is written before anything is deleted, and each key is counted in the script that deletes
it, so that a deletion goes on where a killed process stopped, and its receipt stays true.
"""

from collections.abc import Sequence
from typing import Final, Literal

from contract import redis_keys
from contract.errors import UnknownTenant
from contract.tenants import TenantReceipt
from relay.connection import Argument, Connection, Hash, ScriptCall
from relay.scripts.loader import load

COUNT: Final = "n:"
"""Before the name of a count, as a field of the receipt's hash."""
_KEPT_S: Final = 400 * 86400
"""Seconds that a receipt is kept, as the audit log is."""
_LEASE_MS: Final = 30_000


class TenantDeletions:
    """Receipts of deletions."""

    def __init__(self, connection: Connection) -> None:
        """Use this connection."""
        self._connection = connection

    async def begin(self, tenant: str, *, by: str, usage: Literal["keep", "delete"]) -> None:
        """Have everything of a tenant deleted, in the background; one that is under way goes on.

        Raises RelayUnavailable.
        """
        key, now = redis_keys.deletion(tenant), f"{self._connection.now():.3f}"
        if await self._connection.command("HGET", key, "status") == b"running":
            # The entry may be lost, or never have been written: without it nothing goes on.
            await self._connection.command("ZADD", redis_keys.DELETIONS, "NX", now, tenant)
            return
        fields = {
            "tenant": tenant, "status": "running", "requested_by": by, "requested_at": now,
            "usage": usage,
        }  # fmt: skip
        words: list[Argument] = [word for field in fields.items() for word in field]
        await self._connection.pipeline(
            [
                ("DEL", key),
                ("HSET", key, *words),
                ("ZADD", redis_keys.DELETIONS, now, tenant),
            ]
        )

    async def receipt(self, tenant: str) -> TenantReceipt:
        """The receipt of a tenant's last deletion; raises UnknownTenant, RelayUnavailable."""
        found = await self._hash(tenant)
        if b"status" not in found:
            raise UnknownTenant(
                f"tenant {tenant[:64]} was not deleted, or longer ago than {_KEPT_S // 86400} days"
            )
        return _receipt(found)

    async def _hash(self, tenant: str) -> Hash:
        found: Hash = await self._connection.command("HGETALL", redis_keys.deletion(tenant))
        return found

    async def under_way(self) -> list[str]:
        """Tenants whose deletion has not ended, the oldest first; raises RelayUnavailable."""
        found = await self._connection.command("ZRANGE", redis_keys.DELETIONS, 0, -1)
        return [tenant.decode() for tenant in found]

    async def hold(self, process: str) -> bool:
        """Take or renew the lease of the one shim that deletes; False if another has it.

        Raises RelayUnavailable.
        """
        args: list[Argument] = [process, _LEASE_MS, redis_keys.ERASER]
        call = ScriptCall(load("maintainer/renew"), [redis_keys.ERASER], args, bool)
        return await self._connection.call(call)

    async def count(self, tenant: str, what: str, number: int = 1) -> None:
        """Add to a count of the receipt; raises RelayUnavailable."""
        if number:
            key = redis_keys.deletion(tenant)
            await self._connection.command("HINCRBY", key, COUNT + what, number)

    async def end(self, tenant: str, *, reason: str = "") -> None:
        """Record that a deletion has ended; with a `reason` why something may be left.

        Raises RelayUnavailable.
        """
        key, now = redis_keys.deletion(tenant), f"{self._connection.now():.3f}"
        status = "incomplete" if reason else "done"
        await self._connection.pipeline(
            [
                ("HSET", key, "status", status, "ended_at", now, "reason", reason),
                ("EXPIRE", key, _KEPT_S),
                ("ZREM", redis_keys.DELETIONS, tenant),
            ]
        )


def erase(tenant: str, what: str, keys: Sequence[str]) -> ScriptCall[int]:
    """Delete keys of a tenant and count them in its receipt. Returns how many there were."""
    return ScriptCall(
        load("tenants/erase"), [redis_keys.deletion(tenant), *keys], [COUNT + what], int
    )


def _receipt(fields: Hash) -> TenantReceipt:
    text = {name.decode(): value.decode() for name, value in fields.items()}
    counts = {
        name.removeprefix(COUNT): int(value)
        for name, value in sorted(text.items())
        if name.startswith(COUNT)
    }
    known = {name: value for name, value in text.items() if name in TenantReceipt.model_fields}
    times = {name: float(text[name]) for name in ("requested_at", "ended_at") if name in text}
    return TenantReceipt.model_validate({**known, **times, "counts": counts})
