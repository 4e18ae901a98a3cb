"""The script that finds ids by a prefix (relay/lua/ids)."""

from typing import Any

from relay.connection import ScriptCall
from relay.scripts.loader import load


def matching(index: str, prefix: str, first: int, last: int) -> ScriptCall[tuple[int, list[str]]]:
    """Search the ids of these ranks, newest first, in a sorted set by time.

    Returns how many ids there are at these ranks, and those that begin with the prefix.
    """
    return ScriptCall(load("ids/matching"), [index], [prefix, first, last], _matches)


def _matches(reply: Any) -> tuple[int, list[str]]:
    count, *ids = reply
    return count, [id.decode() for id in ids]
