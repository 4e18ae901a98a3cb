"""A tenant: whoever shares the fleet with others, under a name, with a weight and bounds."""

import re
from typing import Annotated, Final

from pydantic import Field, SecretStr, WithJsonSchema, field_serializer

from contract.wire import WireModel

TenantName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Weight = Annotated[float, Field(gt=0, le=1000)]
Limit = Annotated[int, Field(ge=1)]


class Tenant(WireModel):
    """Whose a job is. In every queue a tenant's share of the backend follows its weight."""

    name: TenantName
    weight: Weight = 1.0
    """Twice the weight, twice the share, where both tenants have jobs waiting."""
    admin: bool = False
    """Whether it sees every tenant's jobs, and may manage backends, keys and dead jobs."""
    limit_jobs: Limit | None = None
    """Jobs of its that may wait in one queue; None: only the queue's own bound."""
    limit_tokens: Limit | None = None
    """Estimated tokens of its that may wait in one queue; None: only the queue's own bound."""


DEFAULT_TENANT: Final = Tenant(name="default", admin=True)
"""Whose all jobs are while no key is configured."""


KEY_MARK: Final = "flk_"
"""How every key begins, so that one is recognised where it should not be."""
KEY: Final = re.compile(r"^flk_([0-9a-f]{16})_[A-Za-z0-9_-]{43}$")
KEY_ID: Final = re.compile(r"^[0-9a-f]{16}$")
KEY_ID_BEGINNING: Final = re.compile(r"^[0-9a-f]{4,16}$")
"""What an admin may write in place of an id, where only one key's begins so."""

_TEN_YEARS_S: Final = 315_360_000


class _Rights(WireModel):
    """Whose a key is, and what may be done with it."""

    tenant: TenantName
    weight: Weight = 1.0
    """Twice the weight, twice the share, where several tenants have jobs waiting."""
    admin: bool = False
    """Whether it sees every tenant's jobs, and may manage backends, keys and dead jobs."""
    limit_jobs: Limit | None = None
    """Jobs of the tenant that may wait in one queue."""
    limit_tokens: Limit | None = None
    """Estimated tokens of the tenant that may wait in one queue."""
    name: Annotated[str, Field(max_length=80)] = ""
    """For people: who or what holds the key."""

    @property
    def owner(self) -> Tenant:
        """The tenant that the key names."""
        return Tenant(
            name=self.tenant,
            weight=self.weight,
            admin=self.admin,
            limit_jobs=self.limit_jobs,
            limit_tokens=self.limit_tokens,
        )


class NewKey(_Rights):
    """A key that somebody wants."""

    expires_in_s: Annotated[float, Field(gt=0, le=_TEN_YEARS_S)] | None = None
    """Seconds after which it is refused; null: it holds until it is revoked."""


class KeyFacts(_Rights):
    """All that may be told of a key."""

    id: str
    created_at: float
    """Unix seconds, by Redis's clock."""
    expires_at: float | None = None


class IssuedKey(KeyFacts):
    """A key, the one time that it is shown."""

    key: Annotated[SecretStr, WithJsonSchema({"type": "string"}, mode="serialization")]

    @field_serializer("key", when_used="json")
    def _in_full(self, key: SecretStr) -> str:
        return key.get_secret_value()


class KeyList(WireModel):
    """Every key, the oldest first."""

    keys: tuple[KeyFacts, ...]
