"""A tenant: whoever shares the fleet with others, under a name, with a weight and bounds."""

from typing import Annotated, Final

from pydantic import Field

from contract.wire import Noun

TenantName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Weight = Annotated[float, Field(gt=0, le=1000)]
Limit = Annotated[int, Field(ge=1)]


class Tenant(Noun):
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
