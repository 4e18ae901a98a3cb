"""Callers with tokens of an identity provider: each is a tenant, with what its token permits.

A token stands for a key that is not in the table: its rights come from its claims, it ends at its
expiry, and its calls end with it. Without the setting `oidc_issuer` there are no such callers, and
the library that verifies signatures is not imported.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Never, Self

from api_shim.tokens.token_settings import EVERY_TENANT, TokenSettings, looks_like_a_token
from contract.errors import InvalidSetting
from contract.tenants import EVERY, USE, KeyFacts, Permission
from relay.api_keys import ApiKeyEntry

TOKEN_ID: Final = "token-"  # noqa: S105 - begins the id of a caller, in place of a key's


@dataclass(frozen=True)
class TokenEntry(ApiKeyEntry):
    """What a token stands for, in the form of a key's entry."""

    token: Any = None
    """The `CallerToken` of api_shim/tokens/token_reader.py."""


class TokenCallers:
    """Reads tokens of the issuer that the settings name."""

    def __init__(self, settings: TokenSettings, now: Callable[[], float]) -> None:
        """Fetch nothing yet; `now` is in unix seconds. Raises InvalidSetting without joserfc."""
        try:
            from api_shim.tokens.signing_keys import SigningKeys  # noqa: PLC0415 - an extra
            from api_shim.tokens.token_reader import TokenReader  # noqa: PLC0415
        except ImportError:
            raise InvalidSetting(
                "FLEET_OIDC_ISSUER: tokens need the package joserfc: pip install 'llm-fleet[oidc]'"
            ) from None
        self._keys = SigningKeys(settings)
        self._reader = TokenReader(settings, self._keys, now)
        self._rights = {name: dict(each) for name, each in settings.oidc_tenants.items()}
        self._now = now

    @classmethod
    def of(cls, settings: TokenSettings, now: Callable[[], float]) -> Self | None:
        """The callers of these settings; None if they name no issuer."""
        return cls(settings, now) if settings.oidc_issuer is not None else None

    def known(self, key: str | None) -> TokenEntry | None:
        """The entry of a token that was verified before and is valid; None for anything else."""
        if key is None or not looks_like_a_token(key):
            return None
        token = self._reader.known(key)
        return None if token is None else self._entry(token)

    async def entry(self, key: str) -> TokenEntry:
        """The entry of a token; raises NotAuthenticated, KeysUnavailable."""
        return self._entry(await self._reader.read(key))

    def may_go_on(self, entry: TokenEntry) -> bool:
        """Whether a call of a token may go on: it has not expired, and its signer still counts."""
        return self._reader.is_valid(entry.token)

    async def watch(self) -> Never:
        """Keep the issuer's keys fresh."""
        await self._keys.watch()

    def _entry(self, token: Any) -> TokenEntry:
        permissions = permitted(token.permissions)
        is_admin = "admin" in permissions
        facts = KeyFacts(
            **self._rights_of(token.tenant, is_admin=is_admin),
            id=TOKEN_ID + token.digest,
            tenant=token.tenant,
            name=token.subject[:80],
            admin=is_admin,
            permissions=permissions,
            created_at=self._now(),
            expires_at=token.expires_at,
        )
        return TokenEntry(facts, "", facts.owner, token)

    def _rights_of(self, tenant: str, *, is_admin: bool) -> dict[str, Any]:
        """What the settings give tokens of a tenant; an admin's may use every model."""
        rights = self._rights.get(tenant) or self._rights.get(EVERY_TENANT) or {}
        return {**rights, "models": None, "backends": None} if is_admin else rights


def permitted(words: tuple[str, ...] | None) -> tuple[Permission, ...]:
    """The permissions that a token names; None: the usual ones. Unknown words mean nothing."""
    if words is None:
        return USE
    named = {*words, *(USE if "use" in words else ())}
    if "admin" in named:
        return EVERY
    return tuple(each for each in EVERY if each in named)
