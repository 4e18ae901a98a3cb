"""The order of jobs inside a queue, from arrival to claim.

Every waiting job has one number, its *virtual start*, in seconds of backend time: the later of the
queue's clock (the start of the job claimed last, or now if nothing waits) and the clock of the
job's tenant in its class; plus the slack of the class (contract/requests.py). A tenant's clock
advances by the cost of each job divided by the tenant's weight. So tenants share by weight, a
tenant without waiting jobs is served next, classes age, no job starves, and a position is a rank.
(Start-time fair queueing, Goyal, Vin and Cheng 1996.)

A claim takes the job with the smallest number, with five exceptions. A worker whose slots for
`batch` are used up takes the first job of another class. A worker with loaded (warm) models takes
the first job of one of these before a head whose model is not loaded (cold), if its class is not
lower, and for at most `affinity_patience_s` since the head was first overtaken. Jobs that no
endpoint may run now (`ClaimFilter.resting`, `.only`) are skipped, however many are at the head, so
that one failing model does not block the others. A message of a conversation is left to the address
where the conversation ran last, if that works, for at most `conversation_patience_s` since it was
first left; one that is to run after an earlier message, until that has ended (docs/adr/0055). Jobs
of a tenant that is refused because Redis is nearly full are delayed (docs/adr/0064).

Invariants: a job is in exactly one of backlog, delayed and leases while it lives, and has facts;
`urgent` and the lists of models (`line:<model>`) are subsets of the backlog; `lines` has the first
job of each list; `load` counts the waiting jobs, tokens and bytes of requests, `scheduled` those in
delayed. Each script is idempotent. The code
that holds, renews and returns jobs is in leases.py.
"""

import json
from collections.abc import Mapping
from typing import Final, NamedTuple

from contract.aliases.parameters import applied
from contract.conversations import ConversationTurn
from contract.cost import Cost, cost_of
from contract.jobs import AnyRequest, JobRecord
from contract.model_names import context_length_of
from contract.requests import SLACK_S
from contract.tenants import Tenant

LOOK_AHEAD: Final = 32
"""Jobs at the head of a list that a claim may skip before it gives up."""


class ClaimFilter(NamedTuple):
    """Which jobs a worker can claim now."""

    warm: frozenset[str] | None = None
    """Models that are loaded; None: the claim does not prefer any model."""
    cold: bool = True
    """Whether jobs of models that are not loaded may be claimed: not while the worker loads one."""
    drains: bool = False
    """With `cold=False`: whether jobs of loaded models overtake a cold head for a limited time."""
    batch: bool = True
    """Whether jobs of class `batch` may be claimed: not while these use all slots they may have."""
    resting: frozenset[str] = frozenset()
    """Models (contract/model_names.py, canonical) whose jobs no endpoint may run now."""
    failing: frozenset[str] = frozenset()
    """Models whose last job failed: jobs without an attempt go before jobs that are retried."""
    only: Mapping[str, frozenset[str]] | None = None
    """By untagged model name, the variants (context lengths) that may run beside the running jobs;
    models that are not listed are not restricted. None: the backend ignores context lengths."""
    here: frozenset[str] | None = None
    """Ids of the addresses at which a slot is free: other messages of conversations are left to the
    address of their conversation for a while. None: they are not."""
    one_runner: bool = False
    """With `only`: whether every worker of the queue uses the same server, so that the variants of
    the jobs that others hold count, too."""

    held: frozenset[str] = frozenset()
    """Tenants whose jobs are put off (relay/room/held_tenants.py)."""

    @property
    def takes_any(self) -> bool:
        """Whether it excludes no job: then jobs may be assigned without a claim."""
        limits = self.resting or self.failing or self.only is not None
        return self.warm is None and self.cold and self.batch and not limits


class Bounds(NamedTuple):
    """How much may wait in one queue: of all tenants, and of one tenant. None: no bound."""

    jobs: int | None
    tokens: int | None
    bytes: int | None
    """Of the requests of all jobs that no worker holds."""
    tenant_jobs: int | None
    tenant_tokens: int | None
    tenant_bytes: int | None
    share: float = 1.0
    """The part that one tenant may hold of what it holds and what is free. Below 1 the first job of
    each tenant is taken although the queue is full."""


class Arrival(NamedTuple):
    """A job that is to be enqueued."""

    queue: str
    job_id: str
    facts: str
    """JSON, see `facts_of`."""
    share_s: float
    """Seconds by which the job advances its tenant's clock: its cost divided by the weight."""
    flow: str
    """Name of that clock: `<class> <tenant>`."""
    tenant: str
    bounds: Bounds
    assignment: str = ""
    """What a worker needs to start the job if no other waits: id, attempt, context length or `-`,
    and model, with spaces between; the id of a conversation follows on a line of its own. Empty
    for class `batch`, which may not use every slot, and for a job that is due later."""
    turn: ConversationTurn | None = None
    """Its place in a conversation."""


def arrival(
    record: JobRecord,
    request: AnyRequest,
    tenant: Tenant,
    bounds: Bounds,
    *,
    cost: Cost | None = None,
    size_bytes: int | None = None,
    turn: ConversationTurn | None = None,
    due: float | None = None,
) -> Arrival:
    """What a queue stores of a new job, and the bounds that it checks first.

    `cost` is that of the request with the parameters of its alias, if it is known; `size_bytes` are
    those of the request as it is kept.
    A job that is `due` later (unix seconds) takes its place in the order then: its facts hold what
    that needs.
    """
    request = applied(request)
    cost, length = cost or cost_of(request), context_length_of(request)
    assignment = f"{record.id} {record.attempt} {length or '-'} {record.model or ''}"
    if turn is not None:
        assignment += f"\n{turn.conversation}"
    share_s, flow = cost.seconds / tenant.weight, f"{record.priority} {tenant.name}"
    facts = facts_of(record, cost, length, turn, size_bytes)
    if due is not None:
        facts = json.dumps({**json.loads(facts), "due": due, "share": share_s, "flow": flow})
    can_be_assigned = record.priority != "batch" and due is None
    return Arrival(
        record.queue,
        record.id,
        facts,
        share_s,
        flow,
        tenant.name,
        bounds,
        assignment if can_be_assigned else "",
        turn,
    )


def restored(facts: str, created_at: float, due: float | None = None) -> str:
    """The facts of a job that its queue has lost, with the virtual start of an empty queue.

    `created_at` is in unix seconds, `due` too, if it is scheduled. Fields that a newer version has
    added are kept.
    """
    whole = {**json.loads(facts), "start": created_at, "at": created_at, "due": due}
    if due is None:
        for name in ("due", "share", "flow"):
            whole.pop(name, None)
    return json.dumps(whole)


def facts_of(
    record: JobRecord,
    cost: Cost,
    context_length: int | None = None,
    turn: ConversationTurn | None = None,
    size_bytes: int | None = None,
) -> str:
    """What a claim needs of a job (JSON); `queues/enqueue` adds `start` (virtual) and `at`."""
    facts = {
        "v": record.v,
        "attempt": record.attempt,
        "model": record.model,
        "ctx": None if context_length is None else str(context_length),
        "tenant": record.tenant,
        "tokens": cost.tokens,
        "bytes": size_bytes,
        "slack": SLACK_S[record.priority],
        "batch": record.priority == "batch" or None,
        "interactive": record.priority == "interactive" or None,
        "conv": turn and turn.conversation,
        "in_turn": True if turn is not None and turn.policy == "queue" else None,
        "target": record.target or None,
    }
    return json.dumps({name: value for name, value in facts.items() if value is not None})
