"""The order of jobs inside a queue, from arrival to claim.

Every waiting job has one number, its *virtual start*, in seconds of backend time: where the queue
has come to (the start of the job claimed last, or now if nothing waits), or where the job's tenant
has come to in its class if that is later; plus the slack of the class (contract/requests.py). A
tenant's clock advances by the cost of each job divided by the tenant's weight. So tenants share by
weight, a late one is served at once, classes age, no job starves, and a
position is a rank. (Start-time fair queueing, Goyal, Vin and Cheng 1996.)

A claim takes the smallest number, with three exceptions. A worker whose slots for `batch` are used
up takes the first job of another class. A worker with warm models takes the first job of one of
these before a cold head, if it is of no lesser class, and for no longer than the patience since the
head was first passed over. Jobs that no endpoint may have now (`ClaimFilter.resting`, `.only`) are
passed over, however many wait at the head: one failing model does not block the others.

Invariants: a job is in exactly one of backlog, delayed and leases while it lives, and has facts;
`urgent` and the lines of models hold what the backlog holds of them; `lines` has the first job of
each line; `load` counts what waits.
Each script may be run twice. What holds, renews and returns a job is in leases.py.
"""

import json
from collections.abc import Mapping
from typing import Final, NamedTuple

from contract.cost import Cost, cost_of
from contract.jobs import AnyRequest, JobRecord
from contract.model_names import context_length_of
from contract.requests import SLACK_S
from contract.tenants import Tenant

LOOK_AHEAD: Final = 32
"""Jobs of a newer version that a claim may pass over before it gives up."""


class ClaimFilter(NamedTuple):
    """Which jobs a worker can claim now."""

    warm: frozenset[str] | None = None
    """Models whose jobs cost no load; None: every model is as good as another."""
    cold: bool = True
    """Whether it takes other models' jobs at all: not while it loads one."""
    drains: bool = False
    """With `cold=False`: whether warm ones, too, overtake a cold head for the patience only."""
    batch: bool = True
    """Whether it takes jobs of class `batch`: not while these hold all the slots they may."""
    resting: frozenset[str] = frozenset()
    """Models (contract/model_names.py, canonical) whose jobs no endpoint may have now."""
    failing: frozenset[str] = frozenset()
    """The same, that failed last: a job not tried yet goes before one that comes back."""
    only: Mapping[str, frozenset[str]] | None = None
    """Variants in which a model that runs may be loaded, by its untagged name; other models may be
    loaded in any. None: the backend loads a model in one way only, for any context length."""


class Bounds(NamedTuple):
    """How much may wait in one queue: of all tenants, and of one tenant. None: no bound."""

    jobs: int | None
    tokens: int | None
    tenant_jobs: int | None
    tenant_tokens: int | None


class Arrival(NamedTuple):
    """A job that is to be put into a queue."""

    queue: str
    job_id: str
    facts: str
    """JSON, see `facts_of`."""
    share_s: float
    """By how much it advances its tenant's clock: its cost by the tenant's weight."""
    flow: str
    """Name of that clock: `<class> <tenant>`."""
    tenant: str
    bounds: Bounds


def arrival(record: JobRecord, request: AnyRequest, tenant: Tenant, bounds: Bounds) -> Arrival:
    """What a queue stores of a new job and checks before."""
    cost = cost_of(request)
    return Arrival(
        record.queue,
        record.id,
        facts_of(record, cost, context_length_of(request)),
        cost.seconds / tenant.weight,
        f"{record.priority} {tenant.name}",
        tenant.name,
        bounds,
    )


def restored(facts: str, created_at: float) -> str:
    """The facts of a job that its queue has lost: it starts where it would have in an empty one.

    `created_at` is in unix seconds. What a newer version has added to the facts stays.
    """
    return json.dumps({**json.loads(facts), "start": created_at, "at": created_at})


def facts_of(record: JobRecord, cost: Cost, context_length: int | None = None) -> str:
    """What a claim must know of a job (JSON); `queues/enqueue` adds `start` (virtual) and `at`."""
    facts = {
        "v": record.v,
        "attempt": record.attempt,
        "model": record.model,
        "ctx": None if context_length is None else str(context_length),
        "tenant": record.tenant,
        "tokens": cost.tokens,
        "slack": SLACK_S[record.priority],
        "batch": record.priority == "batch" or None,
    }
    return json.dumps({name: value for name, value in facts.items() if value is not None})
