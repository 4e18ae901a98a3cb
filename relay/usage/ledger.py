"""Reads the ledger: one hash for each tenant and day, a field for each backend, kind and model."""

import json
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from typing import Any, Final, NamedTuple

from contract import redis_keys
from contract.errors import InvalidRequest
from contract.usage import GroupBy, UsageCounts
from relay.connection import Connection
from relay.turns.list_turns import list_turns
from relay.usage.settlement import Settlement

MOST_DAYS: Final = 20_000
"""Days of tenants that one call reads."""
_AT_ONCE: Final = 500
_SETTLE_S: Final = 1.0

Names = tuple[str, ...]


class UsageQuery(NamedTuple):
    """What to read, and how to group it."""

    first_day: date
    last_day: date
    """Included."""
    group_by: Sequence[GroupBy]
    tenant: str | None = None
    """None: all tenants."""
    model: str | None = None
    backend: str | None = None
    kind: str | None = None

    @property
    def days(self) -> list[str]:
        """All days, the first one first."""
        count = (self.last_day - self.first_day).days + 1
        return [f"{self.first_day + timedelta(days=at):%F}" for at in range(count)]

    def wants(self, names: dict[str, str]) -> bool:
        """Whether a row of the ledger is asked for."""
        wanted = {"model": self.model, "backend": self.backend, "kind": self.kind}
        return all(value is None or names[name] == value for name, value in wanted.items())


class Ledger:
    """Reads usage."""

    def __init__(self, connection: Connection) -> None:
        """Read through this connection."""
        self._connection = connection
        self._settlement = Settlement(connection)

    async def read(self, query: UsageQuery) -> dict[Names, UsageCounts]:
        """The usage of each group, by the names in the order of `group_by`.

        What has just ended is settled first, as far as that takes about a second.
        Raises InvalidRequest if it would have to read more than 20,000 days of tenants;
        RelayUnavailable.
        """
        async with list_turns().turn(query.tenant or ""):
            return await self._read(query)

    async def _read(self, query: UsageQuery) -> dict[Names, UsageCounts]:
        await self._settlement.settle(_SETTLE_S)
        found: dict[Names, UsageCounts] = {}
        pairs = await self._pairs(query)
        for first in range(0, len(pairs), _AT_ONCE):
            some = pairs[first : first + _AT_ONCE]
            hashes = await self._connection.replies(
                [("HGETALL", redis_keys.usage(tenant, day)) for day, tenant in some]
            )
            for (day, tenant), fields in zip(some, hashes, strict=True):
                for row, text in (fields or {}).items():
                    with self._connection.passing_over(redis_keys.usage(tenant, day)):
                        names = {"day": day, "tenant": tenant, **_row(row)}
                        if query.wants(names):
                            group = tuple(names[name] for name in query.group_by)
                            found[group] = found.get(group, UsageCounts()).plus(_counts(text))
        return dict(sorted(found.items()))

    async def _pairs(self, query: UsageQuery) -> list[tuple[str, str]]:
        """Day and tenant of each hash to read."""
        days = query.days
        if query.tenant is not None:
            pairs = [(day, query.tenant) for day in days]
        else:
            tenants: list[Iterable[bytes]] = []
            for first in range(0, len(days), _AT_ONCE):
                tenants += await self._connection.replies(
                    [
                        ("SMEMBERS", redis_keys.usage_tenants(day))
                        for day in days[first : first + _AT_ONCE]
                    ]
                )
            pairs = [
                (day, name.decode(errors="replace"))
                for day, names in zip(days, tenants, strict=True)
                for name in names or ()
            ]
        if len(pairs) > MOST_DAYS:
            raise InvalidRequest(
                f"from, to: this is the usage of {len(pairs)} days of tenants, and one call reads "
                f"at most {MOST_DAYS}: ask for fewer days, or for one tenant"
            )
        return pairs


def _row(field: bytes) -> dict[str, str]:
    backend, kind, model = json.loads(field)
    return {"backend": backend, "kind": kind, "model": model}


def _counts(text: bytes) -> UsageCounts:
    """The numbers of a row; a newer version may have written more of them."""
    numbers: Any = [int(number) for number in text.split()]
    return UsageCounts(*numbers[: len(UsageCounts._fields)])
