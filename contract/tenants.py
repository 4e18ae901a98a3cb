"""Tenants, which share the fleet by weight and bounds, and the API keys that name them.

A key has permissions, and may be limited to some models and backends. What is not named is the
default: a key of an older version has none of these fields, and is read as a new one.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, Self, get_args

from pydantic import (
    Field,
    SecretStr,
    StrictBool,
    WithJsonSchema,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from contract.errors import NotAllowed
from contract.model_names import untagged
from contract.requests import Kind, Retention
from contract.wire import WireModel

Permission = Literal[
    "chat", "embed", "rerank", "image", "files", "batches", "webhooks",
    "models:read", "models:write", "models:admin", "admin",
]  # fmt: skip
"""`models:read` lists models, backends and queues and shows a model; `models:write` pulls, loads
and unloads one; `models:admin` copies, creates and deletes; `admin` has every other one, sees the
jobs of all tenants, and manages backends, queues, aliases and keys."""

EVERY: Final[tuple[Permission, ...]] = get_args(Permission)
USE: Final[tuple[Permission, ...]] = (
    "chat", "embed", "rerank", "image", "files", "batches", "webhooks", "models:read",
)  # fmt: skip
"""The permissions of a key for which nobody has named others: to use models, not to change them."""

OF_KIND: Final[Mapping[Kind, Permission]] = {
    "chat": "chat",
    "count": "chat",
    "embed": "embed",
    "rerank": "rerank",
    "image": "image",
    "show": "models:read",
    "list": "models:read",
    "running": "models:read",
    "pull": "models:write",
    "load": "models:write",
    "unload": "models:write",
    "copy": "models:admin",
    "create": "models:admin",
    "delete": "models:admin",
}
"""What each kind of job requires, on whatever surface it is enqueued."""

MOST_PATTERNS: Final = 100
ModelPattern = Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,256}$")]
"""A model's name; `*` stands for any characters."""
BackendPattern = Annotated[str, Field(pattern=r"^[a-z*][a-z0-9_*-]{0,39}$")]
"""A backend's name; `*` stands for any characters."""
ModelPatterns = Annotated[tuple[ModelPattern, ...], Field(min_length=1, max_length=MOST_PATTERNS)]
BackendPatterns = Annotated[
    tuple[BackendPattern, ...], Field(min_length=1, max_length=MOST_PATTERNS)
]


def fits_model(patterns: Sequence[str], model: str) -> bool:
    """Whether a model's name fits one of these patterns; a name without a tag means `latest`."""
    name = untagged(model)
    return any(_fits(untagged(pattern), name) for pattern in patterns)


def fits_backend(patterns: Sequence[str], backend: str) -> bool:
    """Whether a backend's name fits one of these patterns."""
    return any(_fits(pattern, backend) for pattern in patterns)


def _fits(pattern: str, name: str) -> bool:
    """Whether a name fits: its parts in their order, the earliest place of each, so in one pass."""
    first, *others = pattern.split("*")
    if not others:
        return name == first
    *between, last = others
    if not name.startswith(first):
        return False
    at = len(first)
    for part in between:
        at = name.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return len(name) - at >= len(last) and name.endswith(last)


TenantName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Weight = Annotated[float, Field(gt=0, le=1000)]
Limit = Annotated[int, Field(ge=1)]
LimitBytes = Annotated[int, Field(ge=1024, le=2**40)]
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
    limit_bytes: LimitBytes | None = None
    """Most bytes of the requests of jobs that wait in one queue, are scheduled for it, or are
    between two attempts; None: only the queue's own bound."""
    permissions: tuple[Permission, ...] = USE
    """What its key may do; an admin's may do everything."""
    models: tuple[str, ...] | None = None
    """Names of models, or patterns, that its key may use; None: all."""
    backends: tuple[str, ...] | None = None
    """The same of backends."""
    retention: Retention | None = None
    """How long the texts of its jobs are kept at most; None: as FLEET_RETENTION says."""
    key_id: str = ""
    """Which key it was; empty where there is none."""

    def may(self, permission: Permission) -> bool:
        """Whether its key has a permission."""
        return self.admin or permission in self.permissions

    def require(self, permission: Permission) -> None:
        """Raise NotAllowed, with the name of the permission, unless its key has it."""
        if not self.may(permission):
            raise NotAllowed(self._lacking(permission), permission=permission)

    def _lacking(self, permission: Permission) -> str:
        """What to say of a permission that its key lacks: how to add it, and nothing else."""
        if permission == "admin":
            return "This requires an admin's key."
        words: tuple[str, ...] = self.permissions
        if set(USE) <= set(words):
            words = ("use", *(word for word in words if word not in USE))
        return (
            f"This requires the permission {permission}, which this key does not have: an admin "
            f"can give it (`fleet keys update ID --allow {','.join((*words, permission))}`)."
        )

    @property
    def is_limited(self) -> bool:
        """Whether there are models or backends that its key may not use."""
        return self.models is not None or self.backends is not None

    def may_use_model(self, model: str) -> bool:
        """Whether its key may use the model of this name."""
        return self.models is None or fits_model(self.models, model)

    def may_use_alias(self, alias: str, asked: str, model: str) -> bool:
        """Whether its key may use a model by an alias, for which a client asks by a name.

        It may if its list has that model, or names the alias itself. A pattern of the list means
        models only: whoever sets an alias later gives no key more than the key's own list says.
        """
        if self.models is None or alias in self.models or asked in self.models:
            return True
        return fits_model(self.models, model)

    def may_use_backend(self, backend: str) -> bool:
        """Whether its key may use the backend of this name."""
        return self.backends is None or fits_backend(self.backends, backend)


DEFAULT_TENANT: Final = Tenant(name="default", admin=True, permissions=EVERY)
"""The owner of all jobs while there is no API key."""


KEY_MARK: Final = "flk_"
"""The prefix of every key, so that leaked keys can be found."""
KEY: Final = re.compile(r"^flk_([0-9a-f]{16})_[A-Za-z0-9_-]{43}$")
KEY_ID: Final = re.compile(r"^[0-9a-f]{16}$")
KEY_ID_BEGINNING: Final = re.compile(r"^[0-9a-f]{4,16}$")
"""A prefix that an admin may send in place of an id, if only one key matches."""

_TEN_YEARS_S: Final = 315_360_000


class TenantRights(UsageLimits):
    """A tenant's share and limits, of a key or of a tenant's tokens."""

    weight: Weight = 1.0
    """Twice the weight is twice the share, while several tenants have waiting jobs."""
    limit_jobs: Limit | None = None
    """Most waiting jobs of the tenant in one queue."""
    limit_tokens: Limit | None = None
    """Most estimated tokens of the tenant's waiting jobs in one queue."""
    limit_bytes: LimitBytes | None = None
    """Most bytes of the requests of the tenant's jobs that wait in one queue, are scheduled for it,
    or are between two attempts."""
    models: ModelPatterns | None = None
    """Models that it may use, by name, with `*` for any characters; null, or `*`: all."""
    backends: BackendPatterns | None = None
    """The same of backends."""
    retention: Retention | None = None
    """How long the texts of its jobs are kept: `none`, seconds or `ttl`; null: as FLEET_RETENTION
    says. A request may ask for less, and not for more."""

    @field_validator("models", "backends")
    @classmethod
    def _all_is_no_limit(cls, patterns: tuple[str, ...] | None) -> Any:
        return None if patterns is None or "*" in patterns else patterns


class _Rights(TenantRights):
    """What a key gives its tenant."""

    admin: StrictBool = False
    """Whether it has every permission, and sees every tenant's jobs; the same as `admin` among the
    permissions."""
    name: Annotated[str, Field(max_length=80)] = ""
    """A note for humans, such as the client that uses the key."""
    permissions: Annotated[tuple[Permission, ...], Field(max_length=32)] | None = None
    """What it may do; null: to use models, not to change them."""

    @field_validator("permissions")
    @classmethod
    def _each_once(cls, permissions: tuple[Permission, ...] | None) -> Any:
        return None if permissions is None else tuple(p for p in EVERY if p in permissions)


def _has_admin(permissions: Any) -> bool:
    return isinstance(permissions, list | tuple) and "admin" in permissions


class _Wish(_Rights):
    """What an admin wants a key to give."""

    @model_validator(mode="before")
    @classmethod
    def _admin_is_a_permission(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and _has_admin(fields.get("permissions")):
            return {**fields, "admin": True, "permissions": None}
        return fields

    @model_validator(mode="after")
    def _an_admin_has_no_limits(self) -> Self:
        if self.admin and (self.permissions, self.models, self.backends) != (None, None, None):
            raise PydanticCustomError(
                "limited_admin",
                "an admin's key has every permission, model and backend: leave these out, or admin",
            )
        return self


class NewKey(_Wish):
    """The request to create a key."""

    tenant: TenantName
    expires_in_s: Annotated[float, Field(gt=0, le=_TEN_YEARS_S)] | None = None
    """Seconds after which the key expires; null: it is valid until it is revoked."""

    @property
    def effective_permissions(self) -> tuple[Permission, ...]:
        """Its permissions, by name or by default."""
        if self.admin:
            return EVERY
        return USE if self.permissions is None else self.permissions

    def changed(self, change: "KeyChange", age_s: float) -> "NewKey":
        """The same with a change, which comes `age_s` seconds after the key was made.

        Raises pydantic.ValidationError.
        """
        fields = change.model_dump(exclude_unset=True)
        if "permissions" in fields and fields.get("admin") is None:
            fields["admin"] = False
        if fields.get("admin"):
            fields = {"permissions": None, "models": None, "backends": None, **fields}
        if fields.get("expires_in_s") is not None:
            fields["expires_in_s"] += age_s
        return NewKey.model_validate({**self.model_dump(), **fields})


class KeyChange(_Wish):
    """The request to change a key; what is left out stays, a null is the default."""

    expires_in_s: Annotated[float, Field(gt=0, le=_TEN_YEARS_S)] | None = None
    """Seconds from now after which it expires; null: it does not."""


LONGEST_OVERLAP_S: Final = 30 * 86400.0


class KeyRotation(WireModel):
    """The request to replace a key by a new one with the same rights."""

    overlap_s: Annotated[float, Field(ge=0, le=LONGEST_OVERLAP_S)] = 86400.0
    """Seconds for which the old key stays valid beside the new one; never longer than it was."""
    expires_in_s: Annotated[float, Field(gt=0, le=_TEN_YEARS_S)] | None = None
    """Seconds after which the new key expires; without it, as long as the old one was made for."""


class KeyFacts(_Rights):
    """A key as it is shown: all but the key itself."""

    tenant: TenantName
    permissions: tuple[Permission, ...] = USE
    id: str
    created_at: float
    """Unix seconds, by Redis's clock."""
    expires_at: float | None = None
    replaces: str | None = None
    """The key that this one was made to replace."""
    last_used_at: float | None = None
    """Unix seconds at which the last call with it began, to about a minute; null: never, or before
    the fleet kept this."""

    @property
    def owner(self) -> Tenant:
        """The tenant that the key names, with the key's rights."""
        return Tenant(
            name=self.tenant,
            weight=self.weight,
            admin=self.admin,
            limit_jobs=self.limit_jobs,
            limit_tokens=self.limit_tokens,
            limit_bytes=self.limit_bytes,
            limit_tokens_minute=self.limit_tokens_minute,
            limit_tokens_day=self.limit_tokens_day,
            limit_spend_day=self.limit_spend_day,
            limit_spend_month=self.limit_spend_month,
            permissions=self.permissions,
            models=self.models,
            backends=self.backends,
            retention=self.retention,
            key_id=self.id,
        )


class IssuedKey(KeyFacts):
    """A new key, with the key itself, which is shown only once."""

    key: Annotated[SecretStr, WithJsonSchema({"type": "string"}, mode="serialization")]

    @field_serializer("key", when_used="json")
    def _in_full(self, key: SecretStr) -> str:
        return key.get_secret_value()


class KeyList(WireModel):
    """Every key, the oldest first."""

    keys: tuple[KeyFacts, ...]


class TenantReceipt(WireModel):
    """What a deletion of everything of a tenant has deleted so far."""

    tenant: TenantName
    status: Literal["running", "done", "incomplete"]
    """`incomplete`: it has ended, and something may be left; `reason` says why."""
    reason: str = ""
    usage: Literal["keep", "delete"]
    """Whether the ledger of what the tenant has used is kept."""
    requested_by: str
    """The tenant whose admin asked for it."""
    requested_at: float
    """Unix seconds, by Redis's clock."""
    ended_at: float | None = None
    counts: dict[str, int] = Field(default_factory=dict)
    """How many of each kind: `jobs`, `files`, `batches`, `api_keys`, `webhooks` and others."""


class AuditEntry(WireModel):
    """Who did, or tried to do, what."""

    id: str
    """Increases with time."""
    at: float
    """Unix seconds, by Redis's clock."""
    tenant: str
    key: str = ""
    """The key's id; empty while the fleet has no keys."""
    key_name: str = ""
    action: str
    """Method and path of the route, as in `DELETE /api/v1/keys/{id}`; or `on_missing: pull`."""
    subject: str = ""
    """What it was done to, as in `box` or `llama3.2 on box`."""
    status: int
    """Of the response; 403: it was refused."""
    address: str = ""
    """The client's, as the shim saw it."""
    request_id: str = ""


class AuditPage(WireModel):
    """A page of the audit log, the newest entry first."""

    entries: tuple[AuditEntry, ...]
    next: str | None = None
    """Send it as `before` for the next page; null: there are no older entries."""
