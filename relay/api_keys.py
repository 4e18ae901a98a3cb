"""API keys, which name tenants: issue, change, rotate, revoke and read the table in Redis.

Redis holds a SHA-256 digest of each key, never the key. A slow hash (bcrypt, argon2) protects
passwords that people chose; a key is 256 random bits, and every request computes the hash.

Invariants of the scripts: while there is any key, one of them may manage the others and does not
expire, so that no operator is locked out; once there was a key, the table has a `revision`, so
that a table whose keys were all revoked differs from one that Redis has lost.
"""

import hashlib
import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hmac import compare_digest
from typing import Any, Final
from uuid import uuid4

from pydantic import SecretStr, ValidationError

from contract import redis_keys
from contract.errors import InvalidRequest, LastAdmin, RelayUnavailable, UnknownKey
from contract.tenants import (
    KEY,
    KEY_MARK,
    IssuedKey,
    KeyChange,
    KeyFacts,
    KeyRotation,
    NewKey,
    Tenant,
)
from contract.wire import WireModel, encode
from relay.connection import Argument, Connection, Hash, ScriptCall, pairs
from relay.scripts.loader import load

MOST_KEYS: Final = 10_000
_USES_TTL_S: Final = 400 * 86400
_SHORTEST_S: Final = 0.001
_LONGEST_ID: Final = 32


class _Stored(WireModel):
    """The stored JSON of a key, without its time of creation; `wish` is a field name in Redis."""

    digest: str
    wish: NewKey
    replaces: str | None = None


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

    def successor_of(self, entry: ApiKeyEntry) -> ApiKeyEntry | None:
        """The last key that was made to replace this one."""
        own = entry.facts.id
        return next(
            (e for e in reversed([*self.entries.values()]) if e.facts.replaces == own), None
        )


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
            raise _too_many()
        return issued

    async def _issue(self, new: NewKey, limit: int) -> IssuedKey | None:
        """Create a key; None if there are `limit`."""
        key_id, key = _new_key()
        stored = encode(_Stored(digest=_digest(key), wish=new))
        entry = await self._connection.call(
            issue_key(key_id, stored, keeps=_keeps(new), revision=uuid4().hex, limit=limit)
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

    async def change(self, key_id: str, change: KeyChange) -> KeyFacts:
        """Change what a key gives, from now on; its secret stays.

        Raises UnknownKey, InvalidRequest, LastAdmin, RelayUnavailable.
        """
        entry, stored, age_s = await self._find(key_id)
        wish = _changed(stored.wish, change, age_s)
        kept = stored.model_copy(update={"wish": wish})
        return _read(key_id, await self._replace(key_id, entry, kept)).facts

    async def rotate(self, key_id: str, rotation: KeyRotation) -> IssuedKey:
        """Create a key with the rights of another one, which expires after the overlap.

        Raises UnknownKey, InvalidRequest, LastAdmin, RelayUnavailable.
        """
        entry, stored, age_s = await self._find(key_id)
        rest_s = (stored.wish.expires_in_s or float("inf")) - age_s
        if rest_s <= 0:
            raise InvalidRequest(f"the key {key_id} has expired: create a new one")
        rest_s = max(_SHORTEST_S, min(rest_s, rotation.overlap_s))
        ends = stored.wish.model_copy(update={"expires_in_s": age_s + rest_s})
        lasts_s = rotation.expires_in_s or stored.wish.expires_in_s
        new_id, key = _new_key()
        new = _Stored(
            digest=_digest(key),
            wish=stored.wish.model_copy(update={"expires_in_s": lasts_s}),
            replaces=key_id,
        )
        kept = stored.model_copy(update={"wish": ends})
        made = await self._replace(key_id, entry, kept, (new_id, new))
        return IssuedKey(**dict(_read(new_id, made).facts), key=SecretStr(key))

    async def _find(self, key_id: str) -> tuple[bytes, _Stored, float]:
        """The entry of a key, what it says, and the key's age (seconds)."""
        now, _, table = await self._connection.call(read_table(""))
        text = (table or {}).get(key_id.encode())
        if text is None:
            raise _unknown(key_id)
        try:
            _, created_at, body = text.split(b" ", 2)
            return text, _Stored.model_validate_json(body), now - float(created_at)
        except ValueError as error:
            raise InvalidRequest(
                f"the key {key_id} was made by a newer version of the fleet, or is damaged: change "
                "it there, or create another one"
            ) from error

    async def _replace(
        self, key_id: str, expected: bytes, kept: _Stored, new: tuple[str, _Stored] | None = None
    ) -> bytes:
        """Write a key's entry again, and one more; returns the entry of the last."""
        keeps = _keeps(kept.wish)
        args: list[Argument] = [
            key_id, expected, int(keeps), encode(kept), uuid4().hex, MOST_KEYS,
        ]  # fmt: skip
        if new is not None:
            args += [new[0], int(_keeps(new[1].wish)), encode(new[1])]
        entry = await self._connection.call(change_key(args))
        if not entry:
            raise _unknown(key_id)
        if entry == b"full":
            raise _too_many()
        if entry == b"last":
            raise LastAdmin(
                f"{key_id} is the last admin's key that does not expire: create another such key "
                "first"
            )
        if entry == b"changed":
            raise InvalidRequest(f"the key {key_id} was changed at the same moment: repeat it")
        return entry

    async def revoke(self, key_id: str) -> KeyFacts:
        """Delete a key; raises UnknownKey, LastAdmin, RelayUnavailable."""
        entry = await self._connection.call(revoke_key(key_id, uuid4().hex))
        if not entry:
            raise _unknown(key_id)
        if entry == b"last":
            raise LastAdmin(
                f"{key_id} is the last admin's key that does not expire: create another such key "
                "first, or revoke all others before this one"
            )
        with suppress(RelayUnavailable):  # the key is gone; `uses` drops the rest
            await self._connection.command("HDEL", redis_keys.KEYS_USED, key_id)
        return _read(key_id, entry).facts

    async def note_uses(self, at: Mapping[str, float]) -> None:
        """Keep the times (unix seconds) of the last calls, by key id; raises RelayUnavailable."""
        words = [word for use in at.items() for word in use]
        await self._connection.pipeline(
            [
                ("HSET", redis_keys.KEYS_USED, *words),
                ("EXPIRE", redis_keys.KEYS_USED, _USES_TTL_S),
            ]
        )

    async def with_uses(self, keys: Iterable[KeyFacts]) -> tuple[KeyFacts, ...]:
        """The same keys with their last use; forgets uses of others. Raises RelayUnavailable."""
        (flat,) = await self._connection.replies([("HGETALL", redis_keys.KEYS_USED)])
        times: dict[str, float] = {}
        for id, at in (flat or {}).items():
            with self._connection.passing_over(redis_keys.KEYS_USED):
                times[id.decode(errors="replace")] = float(at)
        found, known = tuple(keys), {key.id.encode() for key in keys}
        gone = [id for id in flat or () if id not in known]
        if gone:
            await self._connection.command("HDEL", redis_keys.KEYS_USED, *gone)
        return tuple(key.model_copy(update={"last_used_at": times.get(key.id)}) for key in found)

    async def refresh(self, known: ApiKeyTable) -> ApiKeyTable:
        """The current table, `known` itself if it is unchanged; sets the connection's clock.

        Raises RelayUnavailable.
        """
        now, revision, table = await self._connection.call(read_table(known.revision))
        self._connection.set_clock(now)
        if table is None:
            return known
        texts = {
            id.decode(errors="replace"): text for id, text in table.items() if id != b"revision"
        }
        return ApiKeyTable(revision, len(texts), self._entries(texts))

    def _entries(self, texts: Mapping[str, bytes]) -> dict[str, ApiKeyEntry]:
        found = []
        for key_id, text in texts.items():
            # A newer version may have written fields that this one does not know.
            with self._connection.passing_over(f"{redis_keys.KEYS}, key {key_id[:_LONGEST_ID]}"):
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
        replaces=stored.replaces,
        created_at=at,
        expires_at=None if ttl_s is None else at + ttl_s,
    )
    return ApiKeyEntry(facts, stored.digest, facts.owner)


def _new_key() -> tuple[str, str]:
    """An id, and the key with that id."""
    key_id = secrets.token_hex(8)
    return key_id, f"{KEY_MARK}{key_id}_{secrets.token_urlsafe(32)}"


def _keeps(wish: NewKey) -> bool:
    """Whether a key may manage the others and does not expire."""
    return wish.admin and wish.expires_in_s is None


def _changed(wish: NewKey, change: KeyChange, age_s: float) -> NewKey:
    try:
        return wish.changed(change, age_s)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "key"
        raise InvalidRequest(f"{where}: {first['msg']}") from error


def _unknown(key_id: str) -> UnknownKey:
    return UnknownKey(f"there is no key {key_id[:32]}: it may have been revoked before")


def _too_many() -> InvalidRequest:
    return InvalidRequest(f"there are {MOST_KEYS} keys, the limit: revoke some")


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


def change_key(args: Sequence[Argument]) -> ScriptCall[bytes | None]:
    """Replace a key's entry and add another key; the arguments are those of the script.

    Returns the last of the entries; None if there is no such key; or why it was refused.
    """
    return ScriptCall(load("api_keys/change"), [redis_keys.KEYS], [*args], _revoked)


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
    return float(now), revision.decode(errors="replace"), pairs(table[0]) if table else None
