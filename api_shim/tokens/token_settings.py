"""Settings of tokens: which issuer signs them, and what their claims mean."""

from typing import Annotated, Final, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator
from pydantic_settings import NoDecode

from contract.settings import DAY_S, FleetSettings
from contract.tenants import TenantRights

ASYMMETRIC: Final = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)
"""Algorithms whose public key cannot sign. With HS256 a shim would have to know the secret; and who
reads the public key as a secret takes a token that anybody can make."""
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
EVERY_TENANT: Final = "*"
ConfiguredTenant = Annotated[str, Field(pattern=r"^(\*|[a-z0-9][a-z0-9._-]{0,63})$")]
Claim = Annotated[str, Field(min_length=1, max_length=200)]


class KeysUnavailable(Exception):
    """The issuer's keys could not be fetched; the message says why, and holds no secret."""


class TokenSettings(FleetSettings):
    """Which tokens a shim takes; none without `oidc_issuer`."""

    oidc_issuer: str | None = None
    """Issuer whose tokens are taken in place of API keys, as its tokens name it (`iss`), as in
    `https://login.example.com/realms/lab`; none: only API keys are."""
    oidc_audience: str | None = None
    """What a token's `aud` must contain: the name of this fleet at the issuer. Required with
    FLEET_OIDC_ISSUER."""
    oidc_jwks_url: str | None = None
    """Address of the issuer's public keys; without it, the issuer's
    `/.well-known/openid-configuration` names it."""
    oidc_algorithms: Annotated[tuple[str, ...], NoDecode] = ("RS256", "ES256", "EdDSA")
    """Algorithms of signatures that are taken, with commas between; only asymmetric ones."""
    oidc_tenant_claim: Claim = "sub"
    """Claim that names the tenant; dots lead into objects, as in `resource_access.fleet.tenant`.
    Choose one that users cannot change."""
    oidc_permissions_claim: Claim | None = None
    """Claim with permissions, a list or words with spaces between, as in `scope` or
    `realm_access.roles`; none: every token may use models, and not change them."""
    oidc_permission_prefix: Annotated[str, Field(max_length=40)] = "fleet:"
    """What a permission begins with in that claim, as in `fleet:chat` and `fleet:models:write`;
    `fleet:use` stands for the usual ones, and words that begin otherwise mean nothing here."""
    oidc_tenants: dict[ConfiguredTenant, TenantRights] = Field(default_factory=dict)
    """What tokens give their tenant, by its name, as in `{"research": {"weight": 2, "models":
    ["qwen3*"], "backends": ["gpu*"], "limit_jobs": 500}, "*": {"limit_tokens_day": 100000}}`; `*`
    is every tenant that is not named. In fleet.toml tables `[oidc_tenants.research]`."""
    oidc_leeway_s: Annotated[float, Field(ge=0, le=300)] = 30
    """Seconds that the clocks of issuer and shims may differ: a token counts as much longer and
    earlier."""
    oidc_refresh_s: Annotated[float, Field(gt=0, le=3600)] = 60
    """Seconds between two fetches of the issuer's keys for tokens that name an unknown one."""
    oidc_max_age_s: Annotated[float, Field(ge=10, le=DAY_S)] = 600
    """Seconds after which the issuer's keys are fetched anew; if that fails the old ones stay."""

    @field_validator("oidc_algorithms", mode="before")
    @classmethod
    def _are_words(cls, given: object) -> object:
        if isinstance(given, str):
            return tuple(each.strip() for each in given.split(",") if each.strip())
        return given

    @field_validator("oidc_algorithms")
    @classmethod
    def _are_asymmetric(cls, algorithms: tuple[str, ...]) -> tuple[str, ...]:
        if not algorithms or not ASYMMETRIC.issuperset(algorithms):
            raise ValueError(f"give some of {', '.join(sorted(ASYMMETRIC))}, with commas between")
        return algorithms

    @field_validator("oidc_issuer", "oidc_jwks_url")
    @classmethod
    def _is_safe(cls, url: str | None) -> str | None:
        if url is not None and not is_safe(url):
            raise ValueError("give an https:// address; http:// only on this machine")
        return url

    @model_validator(mode="after")
    def _has_audience(self) -> Self:
        if self.oidc_issuer is not None and not self.oidc_audience:
            raise ValueError(
                "FLEET_OIDC_AUDIENCE: name this fleet's audience, or a token that the issuer made "
                "for another service would be taken"
            )
        return self


def is_safe(url: str) -> bool:
    """Whether keys may be fetched from an address: nobody between can replace them."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return False
    if "@" in parts.netloc or not host:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK)


def looks_like_a_token(text: str) -> bool:
    """Whether a key that a client sends may be a token, and not an API key."""
    return text.startswith("ey") and text.count(".") == 2  # noqa: PLR2004 - head, claims, signature
