"""Usage: what the jobs of tenants have used on which day, what it costs, and how full limits are.

A job counts on the day (UTC) on which it ended. The ledger counts what backends have done: of a job
that was retried, the tokens of every attempt, also of text that was discarded.
"""

from fnmatch import fnmatchcase
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import BeforeValidator, Field

from contract.wire import WireModel

_TOKENS_OF_A_PRICE: Final = 1_000_000
NANO: Final = 1_000_000_000
"""Costs are kept as whole billionths of the currency, so that sums are exact."""

_MOST: Final = 1_000_000
_SHAPE: Final = 'give prices by model, as in {"gpt-4o": {"input": 2.5, "output": 10}}'
Price = Annotated[float, Field(ge=0, le=_MOST)]


class ModelPrice(WireModel):
    """What a model costs, in the fleet's currency."""

    input: Price = 0.0
    """A million prompt tokens."""
    output: Price = 0.0
    """A million completion tokens, those of reasoning included."""
    cached_input: Price | None = None
    """A million prompt tokens that the backend had cached; None: as `input`."""
    image: Price = 0.0
    """One image."""

    def cost_nano(self, used: "UsageCounts") -> int:
        """The cost of what a job has used, in billionths of the currency."""
        cached = min(used.cached_tokens, used.prompt_tokens)
        cached_price = self.input if self.cached_input is None else self.cached_input
        of_tokens = (
            (used.prompt_tokens - cached) * self.input
            + cached * cached_price
            + used.completion_tokens * self.output
        )
        return round(of_tokens * NANO / _TOKENS_OF_A_PRICE + used.images * self.image * NANO)


def _checked(prices: Any) -> Any:
    """The prices as they are; raises ValueError that names the model and field that are wrong."""
    if not isinstance(prices, dict):
        raise ValueError(_SHAPE)  # noqa: TRY004 - pydantic reports no TypeError
    for name, price in prices.items():
        if isinstance(price, ModelPrice):
            continue
        if not isinstance(price, dict):
            raise ValueError(f"{name!r}: {_SHAPE}")  # noqa: TRY004 - as above
        for field, amount in price.items():
            if field not in ModelPrice.model_fields:
                known = ", ".join(ModelPrice.model_fields)
                raise ValueError(f"{name!r} has no price {field!r}: the prices are {known}")
            is_number = isinstance(amount, int | float) and not isinstance(amount, bool)
            if not (is_number and 0 <= amount <= _MOST):
                raise ValueError(f"{name!r}, {field}: give a number from 0 to {_MOST}")
    return prices


Prices = Annotated[dict[str, ModelPrice], BeforeValidator(_checked)]
"""Prices by model, as `gpt-4o`, `cloud/gpt-4o` of one backend, or with wildcards, `gpt-4*`."""


def price_of(prices: Prices, backend: str, model: str) -> ModelPrice | None:
    """The price of a backend's model: of its exact name, else of the first pattern that fits."""
    names = (f"{backend}/{model}", model)
    for name in names:
        if name in prices:
            return prices[name]
    for pattern, price in prices.items():
        if any(fnmatchcase(name, pattern) for name in names):
            return price
    return None


class UsageCounts(NamedTuple):
    """What jobs have used; the order is that of the numbers in Redis."""

    requests: int = 0
    failed: int = 0
    cancelled: int = 0
    estimated: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    images: int = 0
    backend_ms: int = 0
    cost_nano: int = 0

    def plus(self, other: "UsageCounts") -> "UsageCounts":
        """The sum of both."""
        return UsageCounts(*(a + b for a, b in zip(self, other, strict=True)))


class Used(WireModel):
    """What jobs have used."""

    requests: int = 0
    """Jobs that a worker had started, and that have ended."""
    failed: int = 0
    """Those of them that failed."""
    cancelled: int = 0
    """Those of them that were cancelled."""
    estimated: int = 0
    """Those of them whose tokens are wholly or partly estimated, because the backend did not count
    them: most of them were cut off."""
    prompt_tokens: int = 0
    """Of every attempt that a backend has answered."""
    completion_tokens: int = 0
    """Those of reasoning included."""
    cached_tokens: int = 0
    """Prompt tokens that the backend had cached, where it says so."""
    reasoning_tokens: int = 0
    """Where the backend says so."""
    images: int = 0
    backend_s: float = 0.0
    """Seconds for which the jobs were with a backend, from start to last event of each attempt."""
    cost: float = 0.0
    """In the fleet's currency; models without a price cost nothing."""

    @classmethod
    def of(cls, counts: UsageCounts) -> "Used":
        """The same as shown to clients."""
        return cls(**_shown(counts))


class UsageRow(Used):
    """What a group of jobs has used; the fields that do not tell the groups apart are null."""

    day: str | None = None
    """As in `2026-11-29` (UTC)."""
    tenant: str | None = None
    backend: str | None = None
    model: str | None = None
    """Empty for jobs without one; `other`: models beyond FLEET_USAGE_ROWS of one day."""
    kind: str | None = None

    @classmethod
    def group(cls, names: dict[str, str], counts: UsageCounts) -> "UsageRow":
        """The row of a group, with the names that tell it apart."""
        return cls(**names, **_shown(counts))


def _shown(counts: UsageCounts) -> dict[str, float]:
    fields: dict[str, float] = counts._asdict()
    backend_ms, cost_nano = fields.pop("backend_ms"), fields.pop("cost_nano")
    return {**fields, "backend_s": backend_ms / 1000, "cost": cost_nano / NANO}


GroupBy = Literal["day", "tenant", "backend", "model", "kind"]
GROUPS: Final[tuple[GroupBy, ...]] = ("day", "tenant", "backend", "model", "kind")


class UsagePage(WireModel):
    """A page of usage, ordered by its groups, and the cursor of the next page."""

    first_day: str
    last_day: str
    group_by: tuple[GroupBy, ...]
    currency: str
    total: Used
    """Of all rows, on this page or not."""
    rows: tuple[UsageRow, ...]
    next: str | None = None


LimitName = Literal[
    "limit_tokens_minute", "limit_tokens_day", "limit_spend_day", "limit_spend_month"
]


class LimitView(WireModel):
    """One limit of a tenant, and how full it is."""

    name: LimitName
    """As a key sets it."""
    limit: float
    """Tokens, or money in the fleet's currency."""
    used: float
    """What was used, and what is reserved for jobs that have not ended."""
    free_in_s: float
    """Seconds until all of it is free again; of a minute, at most."""


class TenantUsage(WireModel):
    """A tenant's limits, and how full they are."""

    tenant: str
    limits: tuple[LimitView, ...]
    """Those that it has."""
    reserved_jobs: int
    """Jobs that have not ended, for which something is reserved."""


class LimitsPage(WireModel):
    """Limits of tenants, by name."""

    currency: str
    tenants: tuple[TenantUsage, ...]
