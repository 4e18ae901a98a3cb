"""The aliases that this shim applies: those of its settings, and those that admins have set."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Final, Never

from contract.aliases.alias_table import Alias, AliasTable, demand_aliases
from contract.errors import InvalidRequest, RelayUnavailable, UnknownAlias
from contract.usage import Prices
from relay.aliases.alias_store import AliasStore, StoredAliases

_log = logging.getLogger(__name__)

_EVERY_S: Final = 2.0
"""Seconds between two looks for changes that other shims have made."""


class AliasCache:
    """A copy of the aliases, a few seconds old."""

    def __init__(self, store: AliasStore, configured: Mapping[str, Alias], prices: Prices) -> None:
        """`configured` are those of the settings, `prices` are of models; nothing is read yet."""
        self.prices = prices
        self._store = store
        self._configured = dict(configured)
        self._stored = StoredAliases()
        self.table = AliasTable(self._configured)
        """All aliases by name; replaced when they change."""

    def is_stored(self, name: str) -> bool:
        """Whether an admin has set this alias at run time."""
        return name in self._stored.aliases

    async def watch(self) -> Never:
        """Refresh the copy periodically, in the background."""
        while True:
            try:
                await self.refresh()
            except RelayUnavailable as error:
                _log.debug("the aliases stay as they were: %s", error)
            await asyncio.sleep(_EVERY_S)

    async def refresh(self) -> None:
        """Read the stored aliases if they have changed; raises RelayUnavailable."""
        self._use(await self._store.refresh(self._stored))

    async def put(self, name: str, alias: Alias) -> None:
        """Set an alias for all shims.

        Raises InvalidRequest if it, or another alias that names it, could not be used then;
        RelayUnavailable.
        """
        self._use(await self._store.put(name, alias, self._check))

    async def delete(self, name: str) -> None:
        """Delete a stored alias; one of the settings that it has replaced counts again.

        Raises UnknownAlias if none is stored; InvalidRequest if another alias could not be used
        then; RelayUnavailable.
        """
        await self.refresh()
        if not self.is_stored(name):
            if name in self._configured:
                raise InvalidRequest(
                    f"the alias {name} is set by FLEET_ALIASES or [alias] in fleet.toml: remove it "
                    "there and restart the shims, or set another one of this name over it"
                )
            raise UnknownAlias(f"there is no alias {name[:128]}: GET /api/v1/aliases lists them")
        self._use(await self._store.delete(name, self._check))

    def _check(self, stored: Mapping[str, Alias]) -> None:
        demand_aliases({**self._configured, **stored})

    def _use(self, stored: StoredAliases) -> None:
        if stored is not self._stored:
            self._stored = stored
            self.table = AliasTable({**self._configured, **stored.aliases})
