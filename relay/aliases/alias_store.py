"""Aliases that admins set at run time, in one hash that every shim copies when it has changed.

A change is written only if the table is still the one that it was checked with, so that two admins
who change it at once cannot make two aliases name each other in a circle.
"""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple
from uuid import uuid4

from contract import redis_keys
from contract.aliases.alias_table import Alias
from contract.errors import InvalidRequest, RelayUnavailable
from contract.wire import encode
from relay.connection import Connection
from relay.scripts.table_scripts import change_table, read_table, rows

MOST_ALIASES: Final = 1000
LONGEST_ALIAS: Final = 64 * 1024
"""Bytes of an alias as JSON."""
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
        revision, table = await self._connection.call(
            read_table(redis_keys.ALIASES, known.revision)
        )
        if table is None:
            return known
        read = rows(table, Alias, self._connection.passing_over, redis_keys.ALIASES)
        return StoredAliases(revision, dict(read))

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
                change_table(redis_keys.ALIASES, stored.revision, revision, name, text)
            ):
                return StoredAliases(revision, aliases)
        raise RelayUnavailable("the aliases are being changed by others: try again")
