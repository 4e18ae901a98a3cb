"""The audit log: what admins did, and what was refused to keys that lack the permission.

Two streams, because anybody with a key can be refused as often as he likes: refusals must not push
out what was done. Both are bounded, and expire 400 days after their last entry.
"""

from collections.abc import Mapping
from typing import Any, Final

from contract import redis_keys
from contract.tenants import AuditEntry, AuditPage
from relay.connection import Argument, Connection

MOST_DONE: Final = 10_000
MOST_REFUSED: Final = 1_000
_TTL_S: Final = 400 * 86400
_LONGEST: Final = 300
"""Characters of a field."""


class AuditLog:
    """Appends to the audit log and reads it; methods raise RelayUnavailable."""

    def __init__(self, connection: Connection) -> None:
        """Use this connection."""
        self._connection = connection

    async def append(self, fields: Mapping[str, str | int], *, refused: bool) -> None:
        """Append an entry; `fields` are those of `AuditEntry` but `id` and `at`.

        Raises RelayUnavailable.
        """
        stream, most = _stream(refused=refused)
        words: list[Argument] = [
            word for name, value in fields.items() for word in (name, str(value)[:_LONGEST])
        ]
        await self._connection.pipeline(
            [
                ("XADD", stream, "MAXLEN", "~", most, "*", *words),
                ("EXPIRE", stream, _TTL_S),
            ]
        )

    async def page(self, *, limit: int, before: str | None, refused: bool) -> AuditPage:
        """Up to `limit` entries before an id, newest first; raises RelayUnavailable."""
        stream, _ = _stream(refused=refused)
        if before is not None and not before.strip("0-"):
            return AuditPage(entries=(), next=None)  # Redis has no id before 0-0
        last = "+" if before is None else f"({before}"
        entries = await self._connection.command("XREVRANGE", stream, last, "-", "COUNT", limit + 1)
        page = entries[:limit]
        found = []
        for each in page:
            with self._connection.passing_over(f"{stream}, entry {each[0].decode()}"):
                found.append(_entry(each))
        last_id = page[-1][0].decode(errors="replace") if len(entries) > limit else None
        return AuditPage(entries=tuple(found), next=last_id)


def _stream(*, refused: bool) -> tuple[str, int]:
    if refused:
        return redis_keys.AUDIT_REFUSED, MOST_REFUSED
    return redis_keys.AUDIT, MOST_DONE


def _entry(entry: Any) -> AuditEntry:
    """An entry of a stream; raises ValueError for one that the fleet did not write."""
    id, fields = entry
    texts = {
        name.decode(errors="replace"): value.decode(errors="replace")
        for name, value in fields.items()
    }
    known: dict[str, Any] = {name: texts[name] for name in AuditEntry.model_fields if name in texts}
    at = int(id.split(b"-")[0]) / 1000
    return AuditEntry.model_validate({**known, "id": id.decode(), "at": at})
