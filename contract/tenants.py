"""Tenants, which share the fleet by weight and bounds, and the API keys that name them."""

import re
from typing import Annotated, Final

from pydantic import Field, SecretStr, WithJsonSchema, field_serializer

from contract.wire import WireModel

TenantName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Weight = Annotated[float, Field(gt=0, le=1000)]
Limit = Annotated[int, Field(ge=1)]
Money = Annotated[float, Field(gt=0, le=1_000_000_000)]
"""An amount in the fleet's currency (FLEET_CURRENCY)."""


class UsageLimits(WireModel):
    """How much a tenant may use; None: as the fleet's settings say, without one as it likes."""

    limit_tokens_minute: Limit | None = None
    """Most tokens in 60 seconds, of prompts and answers; counted when a job is enqueued."""
    limit_tokens_day: Limit | None = None
    """Most tokens in a day (UTC)."""
    limit_spend_day: Money | None = None
    """Most money in a day (UTC), by the prices of FLEET_PRICES."""
    limit_spend_month: Money | None = None
    """Most money in a month (UTC)."""


class Tenant(UsageLimits):
    """The owner of jobs. Its share of a backend in each queue is proportional to its weight."""

    name: TenantName
    weight: Weight = 1.0
    """Twice the weight is twice the share, while several tenants have waiting jobs."""
    admin: bool = False
    """Whether it sees every tenant's jobs, and may manage backends, keys and dead jobs."""
    limit_jobs: Limit | None = None
    """Most waiting jobs in one queue; None: only the queue's own bound."""
    limit_tokens: Limit | None = None
    """Most estimated tokens of waiting jobs in one queue; None: only the queue's own bound."""


DEFAULT_TENANT: Final = Tenant(name="default", admin=True)
"""The owner of all jobs while there is no API key."""


KEY_MARK: Final = "flk_"
"""The prefix of every key, so that leaked keys can be found."""
KEY: Final = re.compile(r"^flk_([0-9a-f]{16})_[A-Za-z0-9_-]{43}$")
KEY_ID: Final = re.compile(r"^[0-9a-f]{16}$")
KEY_ID_BEGINNING: Final = re.compile(r"^[0-9a-f]{4,16}$")
"""A prefix that an admin may send in place of an id, if only one key matches."""

_TEN_YEARS_S: Final = 315_360_000


class _Rights(UsageLimits):
    """The tenant of a key and its rights."""

    tenant: TenantName
    weight: Weight = 1.0
    """Twice the weight is twice the share, while several tenants have waiting jobs."""
    admin: bool = False
    """Whether it sees every tenant's jobs, and may manage backends, keys and dead jobs."""
    limit_jobs: Limit | None = None
    """Most waiting jobs of the tenant in one queue."""
    limit_tokens: Limit | None = None
    """Most estimated tokens of the tenant's waiting jobs in one queue."""
    name: Annotated[str, Field(max_length=80)] = ""
    """A note for humans, such as the client that uses the key."""

    @property
    def owner(self) -> Tenant:
        """The tenant that the key names."""
        return Tenant(
            name=self.tenant,
            weight=self.weight,
            admin=self.admin,
            limit_jobs=self.limit_jobs,
            limit_tokens=self.limit_tokens,
            limit_tokens_minute=self.limit_tokens_minute,
            limit_tokens_day=self.limit_tokens_day,
            limit_spend_day=self.limit_spend_day,
            limit_spend_month=self.limit_spend_month,
        )


class NewKey(_Rights):
    """The request to create a key."""

    expires_in_s: Annotated[float, Field(gt=0, le=_TEN_YEARS_S)] | None = None
    """Seconds after which the key expires; null: it is valid until it is revoked."""


class KeyFacts(_Rights):
    """A key as it is shown: all but the key itself."""

    id: str
    created_at: float
    """Unix seconds, by Redis's clock."""
    expires_at: float | None = None


class IssuedKey(KeyFacts):
    """A new key, with the key itself, which is shown only once."""

    key: Annotated[SecretStr, WithJsonSchema({"type": "string"}, mode="serialization")]

    @field_serializer("key", when_used="json")
    def _in_full(self, key: SecretStr) -> str:
        return key.get_secret_value()


class KeyList(WireModel):
    """Every key, the oldest first."""

    keys: tuple[KeyFacts, ...]
