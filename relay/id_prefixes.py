"""From the beginning of an id to the id: looked up among what the caller may see, within a bound.

Ids are random, so eight characters tell a hundred thousand apart. There is no index of beginnings:
one would cost every job a write, for a question that only people ask. So the caller's own list is
read, the newest first, `_PAGE` ids a script, which holds Redis up for less than a millisecond.
"""

from collections.abc import Callable
from typing import Final

from contract.errors import AmbiguousId
from relay.connection import Connection
from relay.scripts import ids

REACH: Final = 100_000
"""Newest ids that are looked at; what is older takes its whole id."""
_PAGE: Final = 2_000
_ENOUGH: Final = 20
"""Ids that are found at most: a person is told that there are many."""


async def beginning_with(connection: Connection, index: str, beginning: str) -> list[str]:
    """Ids in a sorted set by time that begin so, the newest first; raises RelayUnavailable.

    An id that comes meanwhile moves the others to higher ranks: one may be met twice, none missed.
    """
    found: dict[str, None] = {}
    for first in range(0, REACH, _PAGE):
        count, matching = await connection.call(
            ids.matching(index, beginning, first, first + _PAGE - 1)
        )
        found |= dict.fromkeys(matching)
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
    found = await beginning_with(connection, index, beginning)
    if not found:
        return None
    exist = await connection.pipeline([("EXISTS", key(id)) for id in found])
    return only(beginning, [id for id, exists in zip(found, exist, strict=True) if exists])


def only(beginning: str, found: list[str]) -> str | None:
    """The one id; None if there is none. Raises AmbiguousId."""
    if len(found) > 1:
        many = f"{len(found)} or more" if len(found) >= _ENOUGH else str(len(found))
        raise AmbiguousId(f"{many} ids begin with {beginning}: write more of the one you mean")
    return found[0] if found else None
