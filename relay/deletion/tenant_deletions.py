"""Deletions of everything that a tenant has: which are under way, and their receipts.

A receipt is written before anything is deleted, and each key is counted in the script that deletes
it, so that a deletion goes on where a killed process stopped, and its receipt stays true. All of it
is done in a full Redis, too, because it makes room.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal
from uuid import uuid4

from contract import redis_keys
from contract.errors import UnknownTenant
from contract.tenants import TenantReceipt
from relay.connection import Argument, Connection, DamagedKey, Hash, ScriptCall
from relay.scripts.loader import load

COUNT: Final = "n:"
"""Before the name of a count, as a field of the receipt's hash."""
_KEPT_S: Final = 400 * 86400
"""Seconds that a receipt is kept, as the audit log is."""
_LEASE_MS: Final = 30_000
_TENANT: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_NUMBER: Final = re.compile(r"[0-9]{1,15}")
_TIMES: Final = frozenset({"requested_at", "ended_at"})
_FORMS: Final[Mapping[str, re.Pattern[str]]] = {
    "status": re.compile("running|done|incomplete"),
    "usage": re.compile("keep|delete"),
    "requested_by": re.compile(r"[\x20-\x7e]{0,64}"),
    "reason": re.compile(r"[\x20-\x7e]{0,1000}"),
    **dict.fromkeys(_TIMES, re.compile(r"[0-9]{1,12}(\.[0-9]{1,6})?")),
}
"""Fields of a receipt beside the counts."""
_MOST_NAMED: Final = 8


class TenantDeletions:
    """Receipts of deletions."""

    def __init__(self, connection: Connection) -> None:
        """Use this connection."""
        self._connection = connection

    async def begin(self, tenant: str, *, by: str, usage: Literal["keep", "delete"]) -> None:
        """Have everything of a tenant deleted, in the background; one that is under way goes on.

        Raises RelayUnavailable.
        """
        now = f"{self._connection.now():.3f}"
        fields = {
            "tenant": tenant, "status": "running", "requested_by": by, "requested_at": now,
            "usage": usage,
        }  # fmt: skip
        await self._connection.call(begin(tenant, now, fields))

    async def receipt(self, tenant: str) -> TenantReceipt:
        """The receipt of a tenant's last deletion.

        What another program has written into it is passed over, and named in the log. Raises
        UnknownTenant, RelayUnavailable, DamagedKey without what a receipt cannot be without.
        """
        found = await self._hash(tenant)
        if b"status" not in found:
            raise UnknownTenant(
                f"tenant {tenant[:64]} was not deleted, or longer ago than {_KEPT_S // 86400} days"
            )
        key = redis_keys.deletion(tenant)
        receipt, strange = _receipt(tenant, found)
        if strange:
            self._connection.pass_over(key, ValueError(f"these fields of it: {strange}"))
        if receipt is None:
            raise DamagedKey(f"the receipt of the deletion of {tenant} is damaged in Redis")
        return receipt

    async def _hash(self, tenant: str) -> Hash:
        found: Hash = await self._connection.command("HGETALL", redis_keys.deletion(tenant))
        return found

    async def under_way(self) -> list[str]:
        """Tenants whose deletion has not ended, the oldest first; raises RelayUnavailable."""
        found = await self._connection.command("ZRANGE", redis_keys.DELETIONS, 0, -1)
        tenants = [tenant.decode(errors="replace") for tenant in found]
        strange = [tenant for tenant in tenants if not _TENANT.fullmatch(tenant)]
        if strange:
            error = ValueError(f"its member {strange[0][:64]!r} is no tenant")
            self._connection.pass_over(redis_keys.DELETIONS, error)
        return [tenant for tenant in tenants if _TENANT.fullmatch(tenant)]

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
            await self._connection.call(count(tenant, what, number, uuid4().hex))

    async def end(self, tenant: str, *, reason: str = "") -> None:
        """Record that a deletion has ended; with a `reason` why something may be left.

        Raises RelayUnavailable.
        """
        await self._connection.call(end(tenant, f"{self._connection.now():.3f}", reason))


def begin(tenant: str, at: str, fields: Mapping[str, str]) -> ScriptCall[int]:
    """Write a receipt with these fields, unless its deletion is under way, and list it as that."""
    words: list[Argument] = [word for field in fields.items() for word in field]
    return ScriptCall(load("tenants/begin"), _keys(tenant), [tenant, at, *words], int)


def count(tenant: str, what: str, number: int, nonce: str) -> ScriptCall[int]:
    """Add to a count of a receipt, once for each nonce."""
    args: list[Argument] = [COUNT + what, number, nonce]
    return ScriptCall(load("tenants/count"), [redis_keys.deletion(tenant)], args, int)


def end(tenant: str, at: str, reason: str) -> ScriptCall[int]:
    """End a deletion; it is incomplete if there is a `reason`."""
    args: list[Argument] = [tenant, "incomplete" if reason else "done", at, reason, _KEPT_S]
    return ScriptCall(load("tenants/end"), _keys(tenant), args, int)


def _keys(tenant: str) -> list[str]:
    return [redis_keys.deletion(tenant), redis_keys.DELETIONS]


def erase(tenant: str, what: str, keys: Sequence[str]) -> ScriptCall[int]:
    """Delete keys of a tenant and count them in its receipt. Returns how many there were."""
    return ScriptCall(
        load("tenants/erase"), [redis_keys.deletion(tenant), *keys], [COUNT + what], int
    )


def _receipt(tenant: str, fields: Hash) -> tuple[TenantReceipt | None, str]:
    """A receipt, None if it cannot be read, and the names of its fields that another wrote."""
    strange: list[str] = []
    known: dict[str, Any] = {"tenant": tenant}
    counts: dict[str, int] = {}
    for field, value in sorted(fields.items()):
        name, text = field.decode(errors="replace"), value.decode(errors="replace")
        if name.startswith(COUNT) and _NUMBER.fullmatch(text):
            counts[name.removeprefix(COUNT)] = int(text)
        elif (form := _FORMS.get(name)) and form.fullmatch(text):
            known[name] = float(text) if name in _TIMES else text
        elif name in _FORMS or name.startswith(COUNT):
            strange.append(ascii(name)[1:-1][:64])
    needed = {name for name, field in TenantReceipt.model_fields.items() if field.is_required()}
    strange += sorted(needed - known.keys() - {*strange})
    told = ", ".join(strange[:_MOST_NAMED])
    if not needed <= known.keys():
        return None, told
    return TenantReceipt.model_validate({**known, "counts": counts}), told
