"""API keys, which name tenants: issue, revoke and read the table in Redis.

Redis holds a SHA-256 digest of each key, never the key. A slow hash (bcrypt, argon2) protects
passwords that people chose; a key is 256 random bits, and every request computes the hash.

Invariants of the scripts: while there is any key, one of them may manage the others and does not
expire, so that no operator is locked out; once there was a key, the table has a `revision`, so
that a table whose keys were all revoked differs from one that Redis has lost.
"""

import hashlib
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from hmac import compare_digest
from typing import Any, Final
from uuid import uuid4

from pydantic import SecretStr, ValidationError

from contract import redis_keys
from contract.errors import InvalidRequest, LastAdmin, UnknownKey
from contract.tenants import KEY, KEY_MARK, IssuedKey, KeyFacts, NewKey, Tenant
from contract.wire import WireModel, encode
from relay.connection import Argument, Connection, Hash, ScriptCall, pairs
from relay.scripts.loader import load

MOST_KEYS: Final = 10_000


class _Stored(WireModel):
    """The stored JSON of a key, without its time of creation; `wish` is a field name in Redis."""

    digest: str
    wish: NewKey


@dataclass(frozen=True)
class ApiKeyEntry:
    """A key of the table."""

    facts: KeyFacts
    digest: str = field(repr=False)
    owner: Tenant
    """`facts.owner`, made once: each call with the key needs it."""

    def is_valid(self, now: float) -> bool:
        """Whether the key has not expired at this time (unix seconds)."""
        return self.facts.expires_at is None or now < self.facts.expires_at


@dataclass(frozen=True)
class ApiKeyTable:
    """All keys, as of one read."""

    revision: str = ""
    """Empty if there has never been a key, or Redis has lost them."""
    count: int = 0
    """Number of keys, with those that this version cannot read."""
    entries: Mapping[str, ApiKeyEntry] = field(default_factory=dict)
    """By key id, oldest first."""

    def find(self, key: str) -> ApiKeyEntry | None:
        """The entry of a key, expired or not; None if there is none."""
        match = KEY.match(key)
        entry = self.entries.get(match[1]) if match else None
        if entry is None or not compare_digest(entry.digest, _digest(key)):
            return None
        return entry


class ApiKeys:
    """Issues, revokes and reads API keys."""

    def __init__(self, connection: Connection) -> None:
        """Use this connection."""
        self._connection = connection

    async def issue(self, new: NewKey) -> IssuedKey:
        """Create a key and store its digest; only the return value has the key itself.

        Raises InvalidRequest if the first key is not an admin's without expiry, or if there are
        10,000 keys; RelayUnavailable.
        """
        issued = await self._issue(new, MOST_KEYS)
        if issued is None:
            raise InvalidRequest(f"there are {MOST_KEYS} keys, the limit: revoke some")
        return issued

    async def _issue(self, new: NewKey, limit: int) -> IssuedKey | None:
        """Create a key; None if there are `limit`."""
        key_id = secrets.token_hex(8)
        key = f"{KEY_MARK}{key_id}_{secrets.token_urlsafe(32)}"
        keeps = new.admin and new.expires_in_s is None
        stored = encode(_Stored(digest=_digest(key), wish=new))
        entry = await self._connection.call(
            issue_key(key_id, stored, keeps=keeps, revision=uuid4().hex, limit=limit)
        )
        if entry == b"first":
            raise InvalidRequest(
                "admin: the first key must be an admin key that does not expire, or no key could "
                "manage the fleet (--admin)"
            )
        if entry == b"full":
            return None
        return IssuedKey(**dict(_read(key_id, entry).facts), key=SecretStr(key))

    async def issue_first(self, new: NewKey) -> IssuedKey | None:
        """The same if there is no key; None if there is one. Raises as `issue`."""
        return await self._issue(new, 1)

    async def revoke(self, key_id: str) -> KeyFacts:
        """Delete a key; raises UnknownKey, LastAdmin, RelayUnavailable."""
        entry = await self._connection.call(revoke_key(key_id, uuid4().hex))
        if not entry:
            raise UnknownKey(f"there is no key {key_id[:32]}: it may have been revoked before")
        if entry == b"last":
            raise LastAdmin(
                f"{key_id} is the last admin's key that does not expire: create another such key "
                "first, or revoke all others before this one"
            )
        return _read(key_id, entry).facts

    async def refresh(self, known: ApiKeyTable) -> ApiKeyTable:
        """The current table, `known` itself if it is unchanged; sets the connection's clock.

        Raises RelayUnavailable.
        """
        now, revision, table = await self._connection.call(read_table(known.revision))
        self._connection.set_clock(now)
        if table is None:
            return known
        texts = {id.decode(): text for id, text in table.items() if id != b"revision"}
        return ApiKeyTable(revision, len(texts), _entries(texts))


def _entries(texts: Mapping[str, bytes]) -> dict[str, ApiKeyEntry]:
    found = []
    for key_id, text in texts.items():
        # A newer version may have written fields that this one does not know.
        with suppress(ValidationError):
            found.append(_read(key_id, text))
    found.sort(key=lambda entry: entry.facts.created_at)
    return {entry.facts.id: entry for entry in found}


def _read(key_id: str, text: bytes) -> ApiKeyEntry:
    _, created_at, body = text.split(b" ", 2)
    # Strict: a field that a newer version has added may be a bound and must not be ignored.
    stored = _Stored.model_validate_json(body)
    ttl_s, at = stored.wish.expires_in_s, float(created_at)
    facts = KeyFacts(
        **stored.wish.model_dump(exclude={"expires_in_s", "permissions"}),
        permissions=stored.wish.effective_permissions,
        id=key_id,
        created_at=at,
        expires_at=None if ttl_s is None else at + ttl_s,
    )
    return ApiKeyEntry(facts, stored.digest, facts.owner)


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


# Scripts of relay/lua/api_keys.


def issue_key(
    key_id: str, entry: bytes, *, keeps: bool, revision: str, limit: int
) -> ScriptCall[bytes]:
    """Add a key; `keeps` is whether it may manage the others and does not expire.

    Returns the table's entry, `<1 or 0> <created_at> <entry>`, or why it was refused: `first` (the
    first key must keep) or `full` (there are `limit`).
    """
    args: list[Argument] = [key_id, int(keeps), entry, revision, limit]
    return ScriptCall(load("api_keys/issue"), [redis_keys.KEYS], args, bytes)


def revoke_key(key_id: str, revision: str) -> ScriptCall[bytes | None]:
    """Delete a key. Returns its entry; None if there is none; `last` if others still need it."""
    return ScriptCall(load("api_keys/revoke"), [redis_keys.KEYS], [key_id, revision], _revoked)


def read_table(known_revision: str) -> ScriptCall[tuple[float, str, Hash | None]]:
    """Read the table if it has changed.

    Returns Redis's time (unix seconds), the revision, and the table (id to entry, and
    `revision`); None in its place if the revision is `known_revision`.
    """
    return ScriptCall(load("api_keys/read"), [redis_keys.KEYS], [known_revision], _read_table)


def _revoked(reply: Any) -> bytes | None:
    return bytes(reply) if reply else None


def _read_table(reply: Any) -> tuple[float, str, Hash | None]:
    now, revision, *table = reply
    return float(now), revision.decode(), pairs(table[0]) if table else None
