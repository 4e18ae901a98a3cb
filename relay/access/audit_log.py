"""The audit log: who did what with rights to change the fleet, and what was refused to keys.

Two sorted sets, of what was done and of refusals, because anybody with a key can be refused as
often as he likes. In each the admins share one bound and every tenant has its own: a tenant that
adds and removes a webhook in a loop pushes out nobody's entries but its own. Entries are kept for
400 days.
"""

import json
from collections.abc import Mapping
from typing import Any, Final
from uuid import uuid4

from pydantic import TypeAdapter

from contract import redis_keys
from contract.tenants import AuditEntry, AuditPage, Tenant
from relay.connection import Argument, Connection, ScriptCall, pairs
from relay.scripts.loader import load

MOST_OF_ADMINS: Final = 10_000
MOST_OF_A_TENANT: Final = 500
MOST_REFUSED: Final = 200
"""Of a tenant, as the admins' are of all admins together."""
_TTL_S: Final = 400 * 86400
_LONGEST: Final = 300
"""Characters of a field."""
_LATEST: Final = 2**53 - 1
"""The last microsecond that a score can be: of the year 2255."""
_json: Final = TypeAdapter(dict[str, Any])


def append_entry(log: str, sharing: str, entry: str, most: int) -> ScriptCall[None]:
    """Append an entry to a log; of those in `sharing` the newest `most` are kept."""
    args: list[Argument] = [entry, most, _TTL_S]
    return ScriptCall(load("audit/append"), [log, sharing], args, lambda _: None)


class AuditLog:
    """Appends to the audit log and reads it; methods raise RelayUnavailable."""

    def __init__(self, connection: Connection) -> None:
        """Use this connection."""
        self._connection = connection

    async def append(
        self, tenant: Tenant, fields: Mapping[str, str | int], *, refused: bool
    ) -> None:
        """Append an entry of a tenant; `fields` are others of `AuditEntry`, without `id` and `at`.

        Raises RelayUnavailable.
        """
        texts = {name: str(value)[:_LONGEST] for name, value in fields.items()}
        # What makes it another entry than one that says the same, and a repeated call the same one.
        entry = json.dumps({"tenant": tenant.name, **texts, "nonce": uuid4().hex})
        log, sharing, most = redis_keys.AUDIT, redis_keys.audit_of(tenant.name), MOST_OF_A_TENANT
        if refused:
            log, most = redis_keys.AUDIT_REFUSED, MOST_REFUSED
            sharing = redis_keys.audit_refused_of(tenant.name)
        elif tenant.admin:
            sharing, most = redis_keys.AUDIT_OF_ADMINS, MOST_OF_ADMINS
        await self._connection.call(append_entry(log, sharing, entry, most))

    async def page(self, *, limit: int, before: str | None, refused: bool) -> AuditPage:
        """Up to `limit` entries before an id, newest first; raises RelayUnavailable."""
        log = redis_keys.AUDIT_REFUSED if refused else redis_keys.AUDIT
        last = _LATEST if before is None else f"({min(_score(before), _LATEST)}"
        flat = await self._connection.command(
            "ZREVRANGEBYSCORE", log, last, 0, "WITHSCORES", "LIMIT", 0, limit + 1
        )
        entries = [(text, float(score)) for text, score in pairs(flat).items()]
        page = entries[:limit]
        found = []
        for text, score in page:
            with self._connection.passing_over(f"{log}, entry {_id(score)}"):
                found.append(_entry(text, score))
        next_id = _id(page[-1][1]) if len(entries) > limit else None
        return AuditPage(entries=tuple(found), next=next_id)


def _score(id: str) -> int:
    """Microseconds of an id, which is `<milliseconds>-<microseconds>`."""
    milliseconds, microseconds = id.split("-")
    return int(milliseconds) * 1000 + int(microseconds)


def _id(score: float) -> str:
    return "{}-{:03}".format(*divmod(int(score), 1000))


def _entry(text: bytes, score: float) -> AuditEntry:
    """An entry; raises ValueError for one that the fleet did not write."""
    fields: dict[str, Any] = _json.validate_json(text)
    known = {name: fields[name] for name in AuditEntry.model_fields if name in fields}
    return AuditEntry.model_validate({**known, "id": _id(score), "at": score / 1e6})
