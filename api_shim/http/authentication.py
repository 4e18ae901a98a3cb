"""Authentication: API keys, checked against a copy of the table that is seconds old.

`Authenticator` applies these rules on every surface:

- With any key configured, a call needs one. A revoked or expired key is refused, and its open
  streams end, within `key_max_age_s`.
- With none, clients on this machine are served; others only with the setting `insecure`, under the
  names that `Hosts` allows. With the setting `hosts`, these are checked also where keys are.
- A shim that listens on another address than loopback does not start without keys, and serves no
  client if they vanish, unless `insecure` is set.
- A key has at most `max_calls_per_key` open calls, so that no tenant takes all connections.
- If the keys cannot be read, because Redis is unavailable or has lost them, every call is refused.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager, suppress
from hmac import compare_digest
from typing import Annotated, Final, NamedTuple, Never

from fastapi import Depends
from starlette.requests import HTTPConnection
from starlette.types import Scope

from api_shim.http.listening import is_loopback
from api_shim.http.origins import Hosts
from api_shim.http.problems import Refusal
from api_shim.settings import ShimSettings
from api_shim.tokens.token_callers import TOKEN_ID, TokenCallers, TokenEntry
from api_shim.tokens.token_settings import KeysUnavailable, looks_like_a_token
from contract.errors import NotAllowed, NotAuthenticated, RelayUnavailable
from contract.tenants import DEFAULT_TENANT, KEY, KEY_MARK, KeyFacts, Permission, Tenant
from relay.api_keys import ApiKeyEntry, ApiKeys, ApiKeyTable
from relay.connection import Connection

PROXIED: Final = ("forwarded", "x-forwarded-for", "x-real-ip", "via")
"""Headers that a proxy adds."""
_REMEDY: Final = (
    "send an API key as `Authorization: Bearer flk_...` (FLEET_API_KEY, or --api-key @FILE, for "
    "`fleet`); an admin creates one with `fleet keys create`"
)

_NOTE_USES_S: Final = 60.0
REVOKED: Final = "The key was revoked or has expired, or has lost a right"
"""Why an open call has ended."""

LAST_WORDS: Final = "last_words"
"""In a scope's state: makes the bytes that end a stream whose key was revoked, of the error."""
CallEnded = asyncio.Future[None]
"""Done when a call's key is no longer valid."""


class _OpenCall(NamedTuple):
    """A call, and what keeps it open."""

    entry: ApiKeyEntry | None
    permission: Permission | None
    """Its route requires it; None: any valid key will do."""


class Admission(NamedTuple):
    """A call that is authenticated."""

    entry: ApiKeyEntry | None
    """The client's key; None where no key is configured."""


class Authenticator:
    """Authenticates calls, and ends them when their key is revoked."""

    def __init__(self, api_keys: ApiKeys, connection: Connection, settings: ShimSettings) -> None:
        """No call is open, and no key is read yet."""
        self._api_keys = api_keys
        self._now = connection.now
        self._settings = settings
        self._hosts = Hosts(settings.hosts)
        self._tokens = TokenCallers.of(settings, connection.now)
        self._table = ApiKeyTable()
        self._refreshed_at = float("-inf")
        self._refreshing: asyncio.Task[None] | None = None
        self._calls: dict[CallEnded, _OpenCall] = {}
        self._used: dict[str, float] = {}
        """When the last call with each key began, by its id, since this was written to Redis."""
        self._uses_noted_at = float("-inf")
        self._open: Counter[str] = Counter()
        """Open calls by the id of their key."""

    async def authenticate(self, connection: HTTPConnection) -> ApiKeyEntry | None:
        """The client's key; None where no key is configured and none is needed.

        Raises NotAuthenticated, Refusal, RelayUnavailable.
        """
        if self._settings.hosts:
            self._hosts.check(connection)
        if time.monotonic() - self._refreshed_at > self._settings.key_max_age_s:
            await self._refresh()
        if not self.has_keys:
            self._check_keyless(connection)
            return None
        key = presented_key(connection)
        if key is None:
            raise NotAuthenticated(f"This fleet requires a key: {_REMEDY}.")
        entry = await self._entry(key)
        if entry is None or not entry.is_valid(self._now()):
            raise NotAuthenticated(f"The key is unknown, revoked or expired: {_REMEDY}.")
        if not self._has_room(entry):
            raise _too_many_calls(self._settings.max_calls_per_key)
        return entry

    async def _entry(self, key: str) -> ApiKeyEntry | None:
        if self._tokens is not None and looks_like_a_token(key):
            try:
                return await self._tokens.entry(key)
            except KeysUnavailable as error:
                raise _not_verified(error) from None
        entry = self._table.find(key)
        if entry is None and KEY.match(key):
            # Another shim may have issued it a moment ago.
            await self.refresh()
            entry = self._table.find(key)
        return entry

    def known_tenant(self, key: str | None) -> str:
        """The tenant of a key or token that is known already, whatever it may do; else empty."""
        entry: ApiKeyEntry | None = None if key is None else self._table.find(key)
        if entry is None and self._tokens is not None:
            entry = self._tokens.known(key)
        return "" if entry is None else entry.owner.name

    def may_read_metrics(self, connection: HTTPConnection) -> bool:
        """Whether the client has sent FLEET_METRICS_KEY; without it the usual rules apply."""
        key, sent = self._settings.metrics_key, presented_key(connection)
        if key is None or sent is None:
            return False
        return compare_digest(key.get_secret_value().encode(), sent.encode())

    def admit_at_once(
        self, key: str | None, permission: Permission, host: str, *, is_local: bool
    ) -> Admission | None:
        """Authenticate a call that needs neither Redis nor an error; None for any other.

        `permission` is what its route requires, `host` the name that it calls. `is_local`: whether
        it comes from this machine, without a proxy between.
        """
        if time.monotonic() - self._refreshed_at > self._settings.key_max_age_s:
            return None
        if self._settings.hosts and not self._hosts.allow(host):
            return None
        if not self.has_keys:
            here = is_local and is_loopback(self._settings.host)
            known = self._settings.insecure and self._hosts.allow(host)
            return Admission(None) if here or known else None
        entry = None if key is None else self._table.find(key)
        if entry is None and self._tokens is not None:
            entry = self._tokens.known(key)
        if entry is None or not entry.is_valid(self._now()) or not self._has_room(entry):
            return None
        return Admission(entry) if entry.owner.may(permission) else None

    def _has_room(self, entry: ApiKeyEntry) -> bool:
        """Whether the key may have one more open call."""
        most = self._settings.max_calls_per_key
        return not most or self._open[entry.facts.id] < most

    def _check_keyless(self, connection: HTTPConnection) -> None:
        """Check a call while no key is configured; raises NotAuthenticated, Refusal."""
        if self._settings.insecure:
            self._hosts.check(connection)
            return
        if not is_loopback(self._settings.host):
            raise NotAuthenticated(
                f"No key is configured, and this shim listens on {self._settings.host}: start it "
                "on 127.0.0.1, create the first key there (`fleet keys create --admin`), and start "
                "it here again."
            )
        listed = self._hosts.is_listed(connection.url.hostname or "")
        if not is_local(connection, is_named=listed):
            raise Refusal(
                "not_local",
                "No key is configured, so only clients on this machine are served, without a "
                "proxy between: create a key there (`fleet keys create --admin`), or start the "
                "shim with FLEET_INSECURE=1 if something else keeps others out.",
                status=403,
            )

    @property
    def has_keys(self) -> bool:
        """Whether calls need a key, or a token: any was configured when the table was last read."""
        return self._table.count > 0 or self._tokens is not None

    async def is_in_force(self, key_id: str, permission: Permission) -> bool:
        """Whether a key is neither revoked nor expired, and has this permission.

        One that a rotation replaced is in force as long as the key in its place. A token is no
        key: it is short, and what was begun with it was allowed.

        Raises RelayUnavailable: what cannot be read is no reason to end anything.
        """
        if key_id.startswith(TOKEN_ID):
            return True
        if time.monotonic() - self._refreshed_at > self._settings.key_max_age_s:
            await self._refresh()
        if not self._table.revision:
            return True  # Redis has lost the keys, not revoked them.
        entry = self._table.entries.get(key_id)
        while entry is not None and not entry.is_valid(self._now()):
            entry = self._table.successor_of(entry)
        return entry is not None and entry.owner.may(permission)

    async def refresh(self) -> None:
        """Read the table now; raises RelayUnavailable."""
        if self._refreshing is not None:
            await asyncio.wait({self._refreshing})
        await self._refresh()

    async def keys(self) -> tuple[KeyFacts, ...]:
        """Every key as of now, oldest first; raises RelayUnavailable."""
        await self.refresh()
        return tuple(entry.facts for entry in self._table.entries.values())

    async def watch(self) -> Never:
        """Refresh the table periodically, which ends calls of revoked keys; keep uses of keys."""
        while True:
            with suppress(RelayUnavailable):
                await self._refresh()
                await self._note_uses()
            self._end_calls()
            await asyncio.sleep(self._settings.key_max_age_s / 2)

    async def watch_issuer(self) -> None:
        """Keep the keys of the issuer of tokens fresh, if there is one."""
        if self._tokens is not None:
            await self._tokens.watch()

    async def _note_uses(self) -> None:
        """Keep the last use of keys, at most once a minute, whatever calls there are."""
        if not self._used or time.monotonic() - self._uses_noted_at < _NOTE_USES_S:
            return
        used, self._used = self._used, {}
        self._uses_noted_at = time.monotonic()
        try:
            await self._api_keys.note_uses(used)
        except RelayUnavailable:
            self._used = used | self._used
            raise

    async def _refresh(self) -> None:
        """Read the table; concurrent callers share one read."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._read_table())
            self._refreshing.add_done_callback(_retrieve_error)
        await asyncio.shield(self._refreshing)

    async def _read_table(self) -> None:
        began_at = time.monotonic()
        table = await self._api_keys.refresh(self._table)
        if self._table.revision and not table.revision:
            raise RelayUnavailable(
                "Redis has lost the API keys of this fleet, so every request is refused: "
                "restore its data, or restart the shim if Redis is meant to be empty"
            )
        self._table, self._refreshed_at = table, began_at
        self._end_calls()

    def _end_calls(self) -> None:
        """End the calls of keys that are revoked or have expired, also while Redis is silent."""
        for ended, call in self._calls.items():
            if not ended.done() and not self._may_go_on(call):
                ended.set_result(None)

    def _may_go_on(self, call: _OpenCall) -> bool:
        """Whether a call's key is still valid, as it is now, and has what the call requires."""
        if call.entry is None:
            return not self.has_keys
        if isinstance(call.entry, TokenEntry):
            return self._tokens is not None and self._tokens.may_go_on(call.entry)
        entry = self._table.entries.get(call.entry.facts.id)
        if entry is None or entry.digest != call.entry.digest or not entry.is_valid(self._now()):
            return False
        if call.entry.owner.admin and not entry.owner.admin:
            return False
        return call.permission is None or entry.owner.may(call.permission)

    def keep_while(self, ended: CallEnded | None, permission: Permission) -> None:
        """End a call of `track` also when its key loses this permission."""
        call = None if ended is None else self._calls.get(ended)
        if ended is not None and call is not None:
            self._calls[ended] = call._replace(permission=permission)

    @contextmanager
    def track(
        self, entry: ApiKeyEntry | None, permission: Permission | None = None
    ) -> Generator[CallEnded]:
        """Register a call; the future that it yields is done when its key is no longer valid.

        Or when the key has lost the permission.
        """
        ended: CallEnded = asyncio.get_running_loop().create_future()
        self._calls[ended] = _OpenCall(entry, permission)
        if entry is not None:
            self._open[entry.facts.id] += 1
            if not isinstance(entry, TokenEntry):
                self._used[entry.facts.id] = self._now()
        try:
            yield ended
        finally:
            del self._calls[ended]
            if entry is not None:
                self._left(entry.facts.id)

    def _left(self, key_id: str) -> None:
        self._open[key_id] -= 1
        if not self._open[key_id]:
            del self._open[key_id]


def last_words(scope: Scope) -> bytes:
    """The end of a stream that has begun and whose key was revoked: the error of its surface.

    Without it, a client of a drop-in surface takes what it has for the whole answer. Empty for a
    stream whose clients know that its last event is missing.
    """
    words = scope["state"].get(LAST_WORDS)
    return b"" if words is None else words(revoked())


def revoked() -> NotAuthenticated:
    """The error of a call whose key was revoked, or has expired, while it was open."""
    return NotAuthenticated(f"{REVOKED}: {_REMEDY}.")


def _not_verified(error: KeysUnavailable) -> Refusal:
    return Refusal(
        "token_keys_unavailable",
        f"Tokens cannot be verified: {error}. API keys work as ever.",
        status=503,
        retryable=True,
        retry_after_s=5.0,
    )


def _too_many_calls(most: int) -> Refusal:
    return Refusal(
        "too_many_calls",
        f"This key has {most} open calls, the most there may be: end some streams and retry, or "
        "raise FLEET_MAX_CALLS_PER_KEY.",
        status=429,
        retryable=True,
        retry_after_s=1.0,
    )


def _retrieve_error(look: asyncio.Task[None]) -> None:
    """Mark the error of a read as retrieved: every task that awaited it may be cancelled."""
    if not look.cancelled():
        look.exception()


def presented_key(connection: HTTPConnection) -> str | None:
    """The key that a client sends, if any; one of this fleet's form before others."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    offered = [token.strip()] if scheme.lower() == "bearer" else []
    offered.append(connection.headers.get("x-api-key", "").strip())
    offered += subprotocols(connection)[1]
    sent = [key for key in offered if key]
    return next((key for key in sent if key.startswith(KEY_MARK)), sent[0] if sent else None)


def subprotocols(connection: HTTPConnection) -> tuple[list[str], list[str]]:
    """The subprotocols that a WebSocket offers, and the keys among them.

    A browser cannot set a header on a WebSocket, but it can name subprotocols.
    """
    offered = connection.scope.get("subprotocols", [])
    keys = [each for each in offered if each.startswith(KEY_MARK) or looks_like_a_token(each)]
    return [each for each in offered if each not in keys], keys


def is_local(connection: HTTPConnection, *, is_named: bool = False) -> bool:
    """Whether the client is a program on this machine, with no proxy between.

    The Host header is checked too, against DNS rebinding: another site may resolve to our address.
    `is_named`: it was, and is a name of this shim.
    """
    caller = connection.client.host if connection.client else ""
    is_ours = is_named or is_loopback(connection.url.hostname or "")
    is_proxied = any(name in connection.headers for name in PROXIED)
    return not is_proxied and is_loopback(caller) and is_ours


def tenant_in(scope: Scope) -> Tenant:
    """The tenant of the API key with which a request was authenticated."""
    entry: ApiKeyEntry | None = scope["state"]["key"]
    return DEFAULT_TENANT if entry is None else entry.owner


async def _caller(connection: HTTPConnection) -> Tenant:
    return tenant_in(connection.scope)


Caller = Annotated[Tenant, Depends(_caller)]
"""A route's parameter: the tenant whose call it is."""


async def _admin(caller: Caller) -> Tenant:
    if not caller.admin:
        raise NotAllowed("This requires an admin's key.")
    return caller


Admin = Annotated[Tenant, Depends(_admin)]
"""A route's parameter: the tenant, which is an admin's."""
