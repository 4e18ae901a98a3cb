"""Reads tokens: a signature by the issuer's key, the right claims, and what they say of a caller.

Nothing of a token is believed before its signature is verified, except which of the issuer's keys
and which of the allowed algorithms to verify it with. Keys and addresses of keys in a token's head
are never used.
"""

import binascii
import hashlib
import re
import warnings
from base64 import urlsafe_b64decode
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from joserfc import jws
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jws import JWSRegistry
from pydantic_core import from_json

from api_shim.tokens.signing_keys import SigningKey, SigningKeys
from api_shim.tokens.token_settings import TokenSettings
from contract.errors import NotAuthenticated
from telemetry.plain_text import escaped

LONGEST_TOKEN: Final = 16 * 1024
"""Characters: tokens with many groups have some thousand."""
_JWS: Final = re.compile(r"(ey[A-Za-z0-9_-]{8,2040})\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_MOST_READ: Final = 4096
"""Tokens whose verification is remembered."""
_LONGEST_HEAD: Final = 2048
_LONGEST_KEY_ID: Final = 256
_TENANT: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class CallerToken(NamedTuple):
    """What a valid token says of its caller."""

    subject: str
    """Without control characters: logs and clients show it."""
    tenant: str
    permissions: tuple[str, ...] | None
    """Without their prefix; None: the usual ones."""
    expires_at: float
    """Unix seconds at which it is no longer taken."""
    key_id: str
    """The issuer's key that has signed it."""

    @property
    def digest(self) -> str:
        """A name for its caller, which does not reveal the subject."""
        return hashlib.sha256(self.subject.encode()).hexdigest()[:16]


class TokenReader:
    """Verifies tokens, and remembers those that it has verified."""

    def __init__(
        self, settings: TokenSettings, keys: SigningKeys, now: Callable[[], float]
    ) -> None:
        """`now` is in unix seconds."""
        self._settings = settings
        self._keys = keys
        self._now = now
        self._known: OrderedDict[bytes, CallerToken] = OrderedDict()
        self._revision = keys.revision
        # Fields that are not registered mean nothing here; `crit` was refused before.
        self._registry = JWSRegistry(
            algorithms=list(settings.oidc_algorithms), strict_check_header=False
        )
        self._registry.max_header_length = _LONGEST_HEAD

    def known(self, token: str) -> CallerToken | None:
        """A token that was verified before and is still valid; None for any other."""
        found = self._fresh().get(_digest(token))
        return found if found is not None and self.is_valid(found) else None

    def is_valid(self, token: CallerToken) -> bool:
        """Whether a token that was verified has not expired, and its key is still the issuer's."""
        return self._now() < token.expires_at and self._keys.has(token.key_id)

    async def read(self, text: str) -> CallerToken:
        """The caller of a token.

        Raises NotAuthenticated, which says what is wrong with it, or KeysUnavailable.
        """
        if (known := self.known(text)) is not None:
            return known
        algorithm, key_id = self._head(text)
        found = await self._keys.find(key_id)
        if found is None:
            raise _refused("the issuer has no key of the id that it names")
        token = self._caller(self._claims(text, found[1], algorithm), found[0])
        known_tokens = self._fresh()
        known_tokens[_digest(text)] = token
        while len(known_tokens) > _MOST_READ:
            known_tokens.popitem(last=False)
        return token

    def _fresh(self) -> OrderedDict[bytes, CallerToken]:
        """What is remembered; nothing of it once the keys have changed."""
        if self._revision != self._keys.revision:
            self._revision = self._keys.revision
            self._known.clear()
        return self._known

    def _head(self, text: str) -> tuple[str, str | None]:
        """Algorithm and key id of a token; raises NotAuthenticated."""
        if len(text) > LONGEST_TOKEN:
            raise _refused(f"it is longer than {LONGEST_TOKEN} characters")
        match = _JWS.fullmatch(text)
        head = _json(match[1]) if match else None
        if head is None:
            raise _refused("it is no signed JWT")
        algorithm, key_id = head.get("alg"), head.get("kid")
        if algorithm not in self._settings.oidc_algorithms:
            raise _refused("its algorithm is not one of FLEET_OIDC_ALGORITHMS")
        if "crit" in head or not (key_id is None or isinstance(key_id, str)):
            raise _refused("its head has fields that are not understood here")
        if key_id is not None and len(key_id) > _LONGEST_KEY_ID:
            raise _refused("the issuer has no key of the id that it names")
        return algorithm, key_id

    def _claims(self, text: str, key: SigningKey, algorithm: str) -> Mapping[str, Any]:
        if (key.as_dict().get("alg") or algorithm) != algorithm:
            raise _refused("its key is of another algorithm")
        try:
            with warnings.catch_warnings():
                # EdDSA has newer names (RFC 9864); issuers use the old one.
                warnings.simplefilter("ignore", SecurityWarning)
                found = jws.deserialize_compact(text, key, [algorithm], self._registry)
        except (JoseError, ValueError, TypeError) as error:
            raise _refused("its signature is wrong") from error
        # Not by the library: it reads lone surrogates, which no UTF-8 has, and any depth.
        claims = _object(found.payload or b"")
        if claims is None:
            raise _refused("its claims are no JSON object that is read here")
        return claims

    def _caller(self, claims: Mapping[str, Any], key_id: str) -> CallerToken:
        settings, now = self._settings, self._now()
        if claims.get("iss") != settings.oidc_issuer:
            raise _refused("another issuer made it")
        audience = claims.get("aud")
        if settings.oidc_audience not in (audience if isinstance(audience, list) else [audience]):
            raise _refused("it is for another audience")
        expires_at = _number(claims, "exp") + settings.oidc_leeway_s
        if now >= expires_at:
            raise _refused("it has expired")
        for claim in ("nbf", "iat"):
            if claim in claims and now < _number(claims, claim) - settings.oidc_leeway_s:
                raise _refused("it is not valid yet")
        tenant = claim_at(claims, settings.oidc_tenant_claim)
        if not isinstance(tenant, str) or not _TENANT.fullmatch(tenant):
            raise _refused(
                f"its claim {settings.oidc_tenant_claim} is no name of a tenant: lower-case "
                "letters, digits, and . _ - (FLEET_OIDC_TENANT_CLAIM)"
            )
        subject = claims.get("sub")
        return CallerToken(
            escaped(subject) if isinstance(subject, str) else tenant, tenant,
            self._permissions(claims), expires_at, key_id,
        )  # fmt: skip

    def _permissions(self, claims: Mapping[str, Any]) -> tuple[str, ...] | None:
        claim, prefix = self._settings.oidc_permissions_claim, self._settings.oidc_permission_prefix
        if claim is None:
            return None
        found = claim_at(claims, claim)
        words = found.split() if isinstance(found, str) else found
        if not isinstance(words, list):
            return ()
        named = (word for word in words if isinstance(word, str) and word.startswith(prefix))
        return tuple(dict.fromkeys(word.removeprefix(prefix) for word in named))


def claim_at(claims: Mapping[str, Any], path: str) -> Any:
    """A claim by its name, else by a path of names with dots between; None if it is not there."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for name in path.split("."):
        if not isinstance(found, Mapping):
            return None
        found = found.get(name)
    return found


def _number(claims: Mapping[str, Any], claim: str) -> float:
    value = claims.get(claim)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e12:  # noqa: PLR2004
        raise _refused(f"its claim {claim} is no time")
    return float(value)


def _json(part: str) -> dict[str, Any] | None:
    try:
        return _object(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except binascii.Error:
        return None


def _object(data: bytes) -> dict[str, Any] | None:
    """A JSON object; None for anything else, as for one of 200 levels or with a lone surrogate."""
    try:
        found = from_json(data)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _refused(reason: str) -> NotAuthenticated:
    return NotAuthenticated(f"The token is not valid: {reason}.")
