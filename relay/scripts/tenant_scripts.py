"""The script that finds one tenant's jobs in a list of all tenants' jobs (relay/lua/ids).

Such a list has no index of tenants, which would cost each job a write. Who reads only its beginning
finds nothing where another tenant has many jobs; so all of it is looked through, up to `MOST_SEEN`.
"""

from typing import Any, Final, NamedTuple, Self

from contract import redis_keys
from relay.connection import Argument, ScriptCall
from relay.scripts.loader import load

SEEN_AT_ONCE: Final = 500
"""Jobs that one script call looks at; it blocks Redis for about a millisecond."""
MOST_SEEN: Final = 100_000
"""Jobs of all tenants among which those of one are looked for."""


class ListSpan(NamedTuple):
    """A part of a list: jobs with scores from `least` to `most`, without the first `offset`."""

    least: str
    most: str
    offset: int = 0
    is_newest_first: bool = False

    @classmethod
    def older_than(cls, score: float | None) -> Self:
        """The jobs before this score, the newest first; None: all."""
        most = "+inf" if score is None else f"({score!r}"
        return cls("-inf", most, is_newest_first=True)

    @classmethod
    def later_than(cls, time_s: float, offset: int) -> Self:
        """The jobs that are due after this time (unix seconds), the next first."""
        return cls(f"({time_s:.3f}", "+inf", offset)


class TenantPart(NamedTuple):
    """What a part of a list has of a tenant."""

    seen: int
    """Jobs that were looked at; fewer than `SEEN_AT_ONCE`: the list has no more."""
    last: float
    """The score of the last one of these."""
    rows: list[tuple[str, float]]
    """The tenant's jobs with their scores, in the order of the list."""

    @property
    def is_last(self) -> bool:
        """Whether nothing of the list comes after it."""
        return self.seen < SEEN_AT_ONCE


def of_tenant(index: str, tenant: str, span: ListSpan) -> ScriptCall[TenantPart]:
    """Look at the next `SEEN_AT_ONCE` jobs of a list for those of a tenant."""
    args: list[Argument] = [
        tenant, span.least, span.most, span.offset, SEEN_AT_ONCE, int(span.is_newest_first),
        redis_keys.record("*"),
    ]  # fmt: skip
    return ScriptCall(load("ids/of_tenant"), [index], args, _part)


def _part(reply: Any) -> TenantPart:
    seen, last, *flat = reply
    rows = [
        (id.decode(errors="replace"), float(score))
        for id, score in zip(flat[::2], flat[1::2], strict=True)
    ]
    return TenantPart(int(seen), float(last or 0.0), rows)
