"""From the beginning of an id to the id: looked up among what the caller may see, within a bound.

Ids are random, so eight characters tell a hundred thousand apart. There is no index of beginnings:
one would cost every job a write, for a question that only people ask. So the caller's own list is
read, the newest first, `_PAGE` ids a script, which holds Redis up for less than a millisecond.
"""

from collections.abc import Callable
from typing import Final

from contract.errors import AmbiguousId
from relay.connection import Connection

REACH: Final = 100_000
"""Newest ids that are looked at; what is older takes its whole id."""
_PAGE: Final = 2_000
_ENOUGH: Final = 20
"""Ids that are found at most: a person is told that there are many."""

MATCHING: Final = """
-- KEYS sorted-set; ARGV beginning first last
local ids = redis.call('ZREVRANGE', KEYS[1], ARGV[2], ARGV[3])
local found = {#ids}
for _, id in ipairs(ids) do
    if string.sub(id, 1, #ARGV[1]) == ARGV[1] then found[#found + 1] = id end
end
return found
"""
"""Returns how many ids were looked at, then those that begin so. Reads only."""


async def beginning_with(connection: Connection, index: str, beginning: str) -> list[str]:
    """Ids in a sorted set by time that begin so, the newest first; raises RelayUnavailable.

    An id that comes meanwhile moves the others to higher ranks: one may be met twice, none missed.
    """
    found: dict[str, None] = {}
    for first in range(0, REACH, _PAGE):
        count, *ids = await connection.run(MATCHING, [index], [beginning, first, first + _PAGE - 1])
        found |= dict.fromkeys(id.decode() for id in ids)
        if count < _PAGE or len(found) >= _ENOUGH:
            break
    return list(found)


async def whole_id(
    connection: Connection, index: str, beginning: str, key: Callable[[str], str]
) -> str | None:
    """The one id of a list that begins so; None if there is none.

    An id whose record, which lies at `key(id)`, has expired is none. Raises AmbiguousId,
    RelayUnavailable.
    """
    ids = await beginning_with(connection, index, beginning)
    if not ids:
        return None
    there = await connection.pipeline([("EXISTS", key(id)) for id in ids])
    return only(beginning, [id for id, is_there in zip(ids, there, strict=True) if is_there])


def only(beginning: str, ids: list[str]) -> str | None:
    """The one id; None if there is none. Raises AmbiguousId."""
    if len(ids) > 1:
        many = f"{len(ids)} or more" if len(ids) >= _ENOUGH else str(len(ids))
        raise AmbiguousId(f"{many} ids begin with {beginning}: write more of the one you mean")
    return ids[0] if ids else None
