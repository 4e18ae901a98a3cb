"""The public keys of an issuer: fetched, cached, and kept while the issuer does not answer.

Invariants: a fetch is bounded in time and bytes; there is at most one at a time, and one in each
`oidc_refresh_s`, however many tokens name an unknown key; a fetch that fails takes no key away.
"""

import asyncio
import logging
import warnings
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, Never

import aiohttp
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import ECKey, JWKRegistry, OKPKey, RSAKey
from pydantic_core import from_json

from api_shim.tokens.token_settings import KeysUnavailable, TokenSettings, is_safe

_log = logging.getLogger(__name__)

SigningKey = RSAKey | ECKey | OKPKey
_TIMEOUT_S: Final = 5.0
_MOST_BYTES: Final = 256 * 1024
_MOST_KEYS: Final = 100
_LONGEST_REASON: Final = 400
"""Characters of it that are logged: the issuer names the address of its keys."""
_RSA_BITS: Final = range(2048, 8193)
_CURVES: Final[Mapping[object, frozenset[object]]] = {
    "RSA": frozenset({None}),
    "EC": frozenset({"P-256", "P-384", "P-521"}),
    "OKP": frozenset({"Ed25519", "Ed448"}),
}
"""Types of keys, each with its curves."""
_DISCOVERY: Final = "/.well-known/openid-configuration"
_OK: Final = 200


class SigningKeys:
    """The keys of one issuer, by their id."""

    def __init__(self, settings: TokenSettings) -> None:
        """Nothing is fetched yet."""
        self._settings = settings
        self._keys: Mapping[str, SigningKey] | None = None
        self._fetching: asyncio.Task[None] | None = None
        self._tried_at = float("-inf")
        self._is_failing = False
        self.revision = 0
        """Changes with the keys."""

    def has(self, key_id: str) -> bool:
        """Whether the issuer has a key of this id, as far as is known."""
        return self._keys is not None and key_id in self._keys

    async def find(self, key_id: str | None) -> tuple[str, SigningKey] | None:
        """A key with its id; None if the issuer has none. No id means its only key.

        Raises KeysUnavailable while no keys are known.
        """
        if self._find(key_id) is None:
            await self._refresh()
        if self._keys is None:
            raise KeysUnavailable("the keys of the issuer of tokens cannot be fetched now")
        return self._find(key_id)

    def _find(self, key_id: str | None) -> tuple[str, SigningKey] | None:
        keys = self._keys or {}
        if key_id is None:
            return next(iter(keys.items())) if len(keys) == 1 else None
        key = keys.get(key_id)
        return None if key is None else (key_id, key)

    async def watch(self) -> Never:
        """Fetch the keys now and periodically, and sooner after a failure."""
        while True:
            await self._refresh()
            is_well = self._keys is not None and not self._is_failing
            await asyncio.sleep(
                self._settings.oidc_max_age_s if is_well else self._settings.oidc_refresh_s
            )

    async def _refresh(self) -> None:
        """Fetch the keys, unless that was tried lately; concurrent callers share one fetch."""
        now = asyncio.get_running_loop().time()
        if self._fetching is None and now - self._tried_at >= self._settings.oidc_refresh_s:
            self._tried_at = now
            self._fetching = asyncio.create_task(self._fetch(), name="fetch keys of tokens")
            self._fetching.add_done_callback(self._fetched)
        if self._fetching is not None:
            await asyncio.shield(self._fetching)

    def _fetched(self, _: asyncio.Task[None]) -> None:
        self._fetching = None

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                keys = _usable(await _read(await self._address()))
        except (KeysUnavailable, TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            reason = (str(error) or type(error).__name__)[:_LONGEST_REASON]
            level = logging.DEBUG if self._is_failing else logging.WARNING  # one line an outage
            _log.log(level, "the keys of the issuer of tokens cannot be fetched: %s", reason)
            self._is_failing = True
            return
        self._is_failing = False
        if self._keys is None or _prints(keys) != _prints(self._keys):
            self._keys = keys
            self.revision += 1
            _log.info("the issuer of tokens has %d keys", len(keys))

    async def _address(self) -> str:
        """Where the keys are; raises KeysUnavailable."""
        if self._settings.oidc_jwks_url is not None:
            return self._settings.oidc_jwks_url
        issuer = self._settings.oidc_issuer or ""
        found = await _read(issuer.rstrip("/") + _DISCOVERY)
        if found.get("issuer") != issuer:
            raise KeysUnavailable("the configuration at the issuer is of another issuer")
        url = found.get("jwks_uri")
        if not isinstance(url, str) or not is_safe(url):
            raise KeysUnavailable("the configuration at the issuer names no https:// jwks_uri")
        return url


async def _read(url: str) -> dict[str, Any]:
    """A JSON object; raises KeysUnavailable, ValueError, aiohttp.ClientError."""
    # Not unpacked: a small body could be of any size then. A redirect could lead anywhere.
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    async with (
        aiohttp.ClientSession(auto_decompress=False, trust_env=False) as http,
        http.get(url, headers=headers, allow_redirects=False) as response,
    ):
        if response.status != _OK:
            raise KeysUnavailable(f"{url} answered {response.status}")
        data = b""
        async for piece in response.content.iter_any():
            data += piece
            if len(data) > _MOST_BYTES:
                raise KeysUnavailable(f"{url} answered more than {_MOST_BYTES} bytes")
    found = from_json(data)
    if not isinstance(found, dict):
        raise KeysUnavailable(f"{url} answered no JSON object")
    return found


def _usable(found: Mapping[str, Any]) -> dict[str, SigningKey]:
    """The keys of a set that can verify signatures; raises KeysUnavailable if there is none."""
    listed = found.get("keys")
    keys: dict[str, SigningKey] = {}
    for each in (listed if isinstance(listed, list) else [])[:_MOST_KEYS]:
        key = _key(each) if isinstance(each, dict) else None
        if key is not None:
            keys.setdefault(str(each.get("kid", "")), key)
    if not keys:
        raise KeysUnavailable("the issuer's key set has no key that can verify signatures")
    return keys


def _key(found: Mapping[str, Any]) -> SigningKey | None:
    """A public key; None for one that is symmetric, weak, for something else, or not valid."""
    with suppress(JoseError, ValueError, TypeError, KeyError), warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)  # weak keys are refused below
        if found.get("use", "sig") != "sig" or found.get("crv") not in _CURVES[found["kty"]]:
            return None
        key = JWKRegistry.import_key({**found})
        if isinstance(key, RSAKey) and key.public_key.key_size not in _RSA_BITS:
            return None
        if isinstance(key, RSAKey | ECKey | OKPKey):
            return key
    return None


def _prints(keys: Mapping[str, SigningKey]) -> dict[str, str]:
    return {id: key.thumbprint() for id, key in keys.items()}
