"""Aliases that admins set at run time, in one hash that every shim copies when it has changed.

A change is written only if the table is still the one that it was checked with, so that two admins
who change it at once cannot make two aliases name each other in a circle.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple
from uuid import uuid4

from pydantic import ValidationError

from contract import redis_keys
from contract.aliases.alias_table import Alias
from contract.errors import InvalidRequest, RelayUnavailable
from contract.wire import decode, encode
from relay.connection import Argument, Connection, Hash, ScriptCall, pairs
from relay.scripts.loader import load

MOST_ALIASES: Final = 1000
LONGEST_ALIAS: Final = 64 * 1024
"""Bytes of an alias as JSON."""
_MARK: Final = "="
"""Before a name in the hash, which has a field `revision` besides."""
_TRIES: Final = 10
"""Changes of others that may come between."""


class StoredAliases(NamedTuple):
    """The aliases in Redis as of one reading, by name."""

    revision: str = ""
    aliases: Mapping[str, Alias] = {}


Check = Callable[[Mapping[str, Alias]], None]
"""Raises InvalidRequest for stored aliases that cannot be used."""


class AliasStore:
    """Reads and changes the stored aliases."""

    def __init__(self, connection: Connection) -> None:
        """Use this connection."""
        self._connection = connection

    async def refresh(self, known: StoredAliases) -> StoredAliases:
        """The aliases now, `known` itself if they are unchanged; raises RelayUnavailable."""
        revision, table = await self._connection.call(read_aliases(known.revision))
        return known if table is None else StoredAliases(revision, _aliases(table))

    async def put(self, name: str, alias: Alias, check: Check) -> StoredAliases:
        """Set an alias; `check` gets all of them with it. Returns them.

        Raises InvalidRequest, also if there are 1,000 aliases or this one has more than 64 KiB;
        RelayUnavailable.
        """
        text = encode(alias)
        if len(text) > LONGEST_ALIAS:
            raise InvalidRequest(
                f"alias {name}: it has {len(text)} bytes, and may have {LONGEST_ALIAS}: shorten "
                "its system prompt or its other parameters"
            )

        def changed(aliases: dict[str, Alias]) -> None:
            aliases[name] = alias
            if len(aliases) > MOST_ALIASES:
                raise InvalidRequest(f"there are {MOST_ALIASES} aliases, the limit: delete some")
            check(aliases)

        return await self._change(name, text, changed)

    async def delete(self, name: str, check: Check) -> StoredAliases:
        """Delete an alias; `check` gets the others. Returns them.

        Raises InvalidRequest, RelayUnavailable.
        """

        def changed(aliases: dict[str, Alias]) -> None:
            aliases.pop(name, None)
            check(aliases)

        return await self._change(name, b"", changed)

    async def _change(
        self, name: str, text: bytes, changed: Callable[[dict[str, Alias]], None]
    ) -> StoredAliases:
        stored = StoredAliases()
        for _ in range(_TRIES):
            stored = await self.refresh(stored)
            aliases, revision = dict(stored.aliases), uuid4().hex
            changed(aliases)
            if await self._connection.call(
                change_alias(stored.revision, revision, f"{_MARK}{name}", text)
            ):
                return StoredAliases(revision, aliases)
        raise RelayUnavailable("the aliases are being changed by others: try again")


def _aliases(table: Hash) -> dict[str, Alias]:
    found: dict[str, Alias] = {}
    for field, text in table.items():
        if field.startswith(_MARK.encode()):
            # A newer version may have written what this one cannot read.
            with suppress(ValidationError):
                found[field.decode(errors="replace").removeprefix(_MARK)] = decode(Alias, text)
    return found


# Scripts of relay/lua/tables.


def read_aliases(known_revision: str) -> ScriptCall[tuple[str, Hash | None]]:
    """Read the table if it has changed.

    Returns its revision and the table (field to text); None in its place if the revision is
    `known_revision`.
    """
    return ScriptCall(load("tables/read"), [redis_keys.ALIASES], [known_revision], _read_table)


def change_alias(known: str, revision: str, field: str, json: bytes) -> ScriptCall[bool]:
    """Set an alias, or delete it (no `json`), if the table has the revision `known`.

    It gets a new `revision`. False if the table has another one.
    """
    args: list[Argument] = [known, revision, field, json]
    return ScriptCall(load("tables/change"), [redis_keys.ALIASES], args, bool)


def _read_table(reply: Any) -> tuple[str, Hash | None]:
    revision, *table = reply
    return revision.decode(errors="replace"), pairs(table[0]) if table else None
