"""Ids by their first characters.

Ids are random, so eight characters tell a hundred thousand jobs apart. There is no index of
prefixes, which would cost each job a write: the client's own list is read, newest first,
`_SCAN_PAGE` ids a script call.
"""

from collections.abc import Callable
from typing import Any, Final

from contract.errors import AmbiguousId
from relay.connection import Connection, ScriptCall
from relay.scripts.loader import load
from relay.turns.list_turns import list_turns

MOST_SCANNED: Final = 100_000
"""Newest ids that are compared with a prefix; an older job needs its whole id."""
_SCAN_PAGE: Final = 2_000
"""Ids that one script call compares; it blocks Redis for less than a millisecond."""
_MOST_MATCHES: Final = 20
"""Matches after which the search stops: the error then says `20 or more`."""


async def ids_with_prefix(connection: Connection, index: str, prefix: str) -> list[str]:
    """Ids with a prefix in a sorted set by time, newest first; raises RelayUnavailable.

    An id that is added meanwhile moves the others to higher ranks: one may be read twice, none is
    missed.
    """
    found: dict[str, None] = {}
    async with list_turns().turn(index):
        for first in range(0, MOST_SCANNED, _SCAN_PAGE):
            call = _matching(index, prefix, first, first + _SCAN_PAGE - 1)
            count, matching = await connection.call(call)
            found |= dict.fromkeys(matching)
            if count < _SCAN_PAGE or len(found) >= _MOST_MATCHES:
                break
    return list(found)


async def id_from_prefix(
    connection: Connection, index: str, prefix: str, key: Callable[[str], str]
) -> str | None:
    """The only id of a sorted set that has this prefix and whose record exists, or None.

    `key(id)` is the key of an id's record. Raises AmbiguousId, RelayUnavailable.
    """
    found = await ids_with_prefix(connection, index, prefix)
    if not found:
        return None
    exist = await connection.pipeline([("EXISTS", key(id)) for id in found])
    return only_match(prefix, [id for id, exists in zip(found, exist, strict=True) if exists])


def only_match(prefix: str, found: list[str]) -> str | None:
    """The only one of these ids, or None if there is none; raises AmbiguousId if there are more."""
    if len(found) > 1:
        many = f"{len(found)} or more" if len(found) >= _MOST_MATCHES else str(len(found))
        raise AmbiguousId(f"{many} ids begin with {prefix}: write more of the one you mean")
    return found[0] if found else None


def _matching(index: str, prefix: str, first: int, last: int) -> ScriptCall[tuple[int, list[str]]]:
    """Search the ids of these ranks, newest first.

    Returns how many ids have these ranks, and those of them with the prefix.
    """
    return ScriptCall(load("ids/matching"), [index], [prefix, first, last], _matches_of)


def _matches_of(reply: Any) -> tuple[int, list[str]]:
    count, *ids = reply
    return count, [id.decode(errors="replace") for id in ids]
