"""Who calls, and whether they may: API keys, looked up in a copy of the table that is seconds old.

The rules, which `Authenticator` keeps for every surface:

- With any key configured, a call needs one. A revoked or expired key is refused, and its open
  streams end, within `key_max_age_s`.
- With none, callers on this machine are let in; others only if the shim was told `insecure`.
- A shim that listens on another address than loopback does not start without keys, and lets nobody
  in if they vanish, unless it was told `insecure`.
- What cannot be known is refused: without Redis, or when Redis has lost the keys, nobody comes in.
"""

import asyncio
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Annotated, Final, Never

from fastapi import Depends
from starlette.requests import HTTPConnection

from api_shim.http.listening import is_loopback
from api_shim.http.problems import Refusal
from api_shim.settings import ShimSettings
from contract.errors import NotAllowed, NotAuthenticated, RelayUnavailable
from contract.tenants import DEFAULT_TENANT, KEY, KEY_MARK, KeyFacts, Tenant
from relay.api_keys import ApiKeyEntry, ApiKeys, ApiKeyTable
from relay.connection import Connection

_PROXIED: Final = ("forwarded", "x-forwarded-for", "x-real-ip", "via")
_ASK: Final = (
    "send an API key as `Authorization: Bearer flk_...` (FLEET_API_KEY or --api-key for `fleet`); "
    "an admin makes one with `fleet keys create`"
)

Ended = asyncio.Future[None]
"""Done when a call may not go on."""


class Authenticator:
    """Lets callers in, and sees them out when their key is revoked."""

    def __init__(self, api_keys: ApiKeys, connection: Connection, settings: ShimSettings) -> None:
        """Nobody has been let in."""
        self._api_keys = api_keys
        self._now = connection.now
        self._settings = settings
        self._table = ApiKeyTable()
        self._looked_at = float("-inf")
        self._looking: asyncio.Task[None] | None = None
        self._calls: dict[Ended, ApiKeyEntry | None] = {}

    async def admit(self, connection: HTTPConnection) -> ApiKeyEntry | None:
        """The caller's key; None where no key is configured and none is needed.

        Raises NotAuthenticated, Refusal, RelayUnavailable.
        """
        if time.monotonic() - self._looked_at > self._settings.key_max_age_s:
            await self._look()
        if not self._table.count:
            self._without_keys(connection)
            return None
        key = presented(connection)
        if key is None:
            raise NotAuthenticated(f"This fleet asks for a key: {_ASK}.")
        entry = self._table.find(key)
        if entry is None and KEY.match(key):
            # Another shim may have issued it a moment ago.
            await self.renew()
            entry = self._table.find(key)
        if entry is None or not entry.is_valid(self._now()):
            raise NotAuthenticated(f"The key is not known here, was revoked or expired: {_ASK}.")
        return entry

    def _without_keys(self, connection: HTTPConnection) -> None:
        """Return if a caller may come in although no key is configured; raises otherwise."""
        if self._settings.insecure:
            return
        if not is_loopback(self._settings.host):
            raise NotAuthenticated(
                f"No key is configured, and this shim listens on {self._settings.host}: start it "
                "on 127.0.0.1, create the first key there (`fleet keys create --admin`), and start "
                "it here again."
            )
        if not is_local(connection):
            raise Refusal(
                "not_local",
                "No key is configured, so only callers on this machine are served, without a proxy "
                "between: create a key there (`fleet keys create --admin`), or start the shim with "
                "FLEET_INSECURE=1 if something else keeps others out.",
                status=403,
            )

    @property
    def has_keys(self) -> bool:
        """Whether any key was configured at the last look."""
        return self._table.count > 0

    async def renew(self) -> None:
        """Look again after a change; raises RelayUnavailable."""
        if self._looking is not None:
            await asyncio.wait({self._looking})
        await self._look()

    async def keys(self) -> tuple[KeyFacts, ...]:
        """Every key as of now, the oldest first; raises RelayUnavailable."""
        await self.renew()
        return tuple(entry.facts for entry in self._table.entries.values())

    async def watch(self) -> Never:
        """Keep the table fresh, so that calls need not wait, and end those of revoked keys."""
        while True:
            with suppress(RelayUnavailable):
                await self._look()
            await asyncio.sleep(self._settings.key_max_age_s / 2)

    async def _look(self) -> None:
        """One look serves all who ask meanwhile."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._looked())
            self._looking.add_done_callback(_retrieved)
        await asyncio.shield(self._looking)

    async def _looked(self) -> None:
        began_at = time.monotonic()
        table = await self._api_keys.refresh(self._table)
        if self._table.revision and not table.revision:
            raise RelayUnavailable(
                "Redis has lost the API keys of this fleet, so nobody is let in: bring its data "
                "back; or, if it is meant to be empty, restart the shim"
            )
        self._table, self._looked_at = table, began_at
        for ended, entry in self._calls.items():
            if not ended.done() and not self._may_go_on(entry):
                ended.set_result(None)

    def _may_go_on(self, entry: ApiKeyEntry | None) -> bool:
        if entry is None:
            return not self._table.count
        return self._table.entries.get(entry.facts.id) == entry and entry.is_valid(self._now())

    @contextmanager
    def call(self, entry: ApiKeyEntry | None) -> Generator[Ended]:
        """A call that was let in; what it yields is done when it may not go on."""
        ended: Ended = asyncio.get_running_loop().create_future()
        self._calls[ended] = entry
        try:
            yield ended
        finally:
            del self._calls[ended]


def _retrieved(look: asyncio.Task[None]) -> None:
    """Whoever asked may have gone; the next one is told again."""
    if not look.cancelled():
        look.exception()


def presented(connection: HTTPConnection) -> str | None:
    """The key that a caller sends, if any; one that looks like ours before others."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    offered = [token.strip()] if scheme.lower() == "bearer" else []
    offered.append(connection.headers.get("x-api-key", "").strip())
    offered += subprotocols(connection)[1]
    sent = [key for key in offered if key]
    return next((key for key in sent if key.startswith(KEY_MARK)), sent[0] if sent else None)


def subprotocols(connection: HTTPConnection) -> tuple[list[str], list[str]]:
    """What a WebSocket offers to speak, and the keys among that.

    A browser can send no header of its own with a WebSocket, but it can name subprotocols.
    """
    offered = connection.scope.get("subprotocols", [])
    keys = [each for each in offered if each.startswith(KEY_MARK)]
    return [each for each in offered if each not in keys], keys


def is_local(connection: HTTPConnection) -> bool:
    """Whether a caller is a program on this machine, with no proxy between.

    The Host is looked at, too: a page elsewhere may give its own name our address.
    """
    caller = connection.client.host if connection.client else ""
    host = connection.url.hostname or ""
    is_proxied = any(name in connection.headers for name in _PROXIED)
    return not is_proxied and is_loopback(caller) and is_loopback(host)


def tenant_of(connection: HTTPConnection) -> Tenant:
    """The tenant of the API key with which a request was authenticated."""
    entry: ApiKeyEntry | None = connection.state.key
    return DEFAULT_TENANT if entry is None else entry.facts.owner


async def _caller(connection: HTTPConnection) -> Tenant:
    return tenant_of(connection)


Caller = Annotated[Tenant, Depends(_caller)]
"""A parameter of a route that wants to know whose the call is."""


async def _admin(caller: Caller) -> Tenant:
    if not caller.admin:
        raise NotAllowed("This takes an admin's key: ask whoever runs the fleet.")
    return caller


Admin = Annotated[Tenant, Depends(_admin)]
"""A parameter of a route that is for admins."""
