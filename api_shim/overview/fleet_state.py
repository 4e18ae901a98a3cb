"""The state of the fleet at one time, as the overview returns it."""

from typing import Annotated, Literal

from pydantic import Field

from contract.requests import Kind
from contract.roster import Capability, QueuePause
from contract.wire import WireModel


class Concern(WireModel):
    """Something that an operator should look at."""

    level: Literal["critical", "warning"]
    code: Literal[
        "no_worker", "starts_worker", "paused", "backend_down", "circuit_open", "oldest_waits",
        "dead_letters", "unreadable_messages", "redis_memory",
    ]  # fmt: skip
    subject: str
    """The queue, backend or model concerned; empty if it is the whole fleet."""
    text: str


class QueueSummary(WireModel):
    """A queue over all workers."""

    name: str
    depth: int
    """Waiting jobs."""
    urgent: int
    """Waiting jobs of the classes `interactive` and `standard`; the others are of `batch`."""
    interactive: int | None
    """Those of class `interactive`; null if too many tenants wait."""
    delayed: int
    """Jobs between two attempts, and scheduled ones that are due within 90 s; not in `depth`."""
    scheduled: int
    """Jobs that are due later, or wait for other jobs."""
    running: int
    slots: int
    workers: int
    """Workers that consume it; those that drain are not counted."""
    is_known: bool
    """Whether no worker consumes it, but one that is started will: its jobs wait for that."""
    tokens: int
    """Estimated tokens of the waiting jobs."""
    oldest_s: float | None
    """Seconds that the oldest waiting job has waited."""
    drain_per_s: float | None
    """Ended jobs a second over the last minutes; null if there were none."""
    eta_s: float | None
    """Seconds until a job enqueued now would start, at that rate; null if unknown."""
    ended: tuple[int, ...]
    """Jobs that ended in each of the last 15 minutes, this minute last."""
    paused: QueuePause | None
    """Why none of its jobs starts now; null if they do."""
    windows: tuple[str, ...]
    """Its run windows; empty: it runs at any time."""
    tenants: dict[str, int] | None
    """Waiting jobs by tenant, for others than admins only the caller's; null if there are too
    many to list."""


class WorkerSlots(WireModel):
    """A worker's share of one kind of job."""

    queue: str
    kind: Kind
    running: int
    slots: int


class WorkerSummary(WireModel):
    """A live worker."""

    name: str
    host: str | None
    """Null for others than admins, as `pid`."""
    pid: int | None
    started_at: float
    """Unix seconds."""
    draining: bool
    version: str | None
    backends: tuple[str, ...]
    running: int
    queues: tuple[WorkerSlots, ...]
    """Queues for chat, embed, image and pull jobs, and others that run something now."""
    loading: tuple[str, ...]
    """Models that its backend loads now."""


class BackendSummary(WireModel):
    """A backend over all workers; `GET /api/v1/models` lists its models."""

    name: str
    type: str
    healthy: bool
    error: str | None
    version: str | None
    circuit_open_until: float | None
    """Unix seconds until which no worker sends it jobs."""
    endpoints: tuple[str, ...]
    """Addresses; for others than admins labels, as in `box/2`."""
    endpoints_down: tuple[str, ...]
    capabilities: tuple[Capability, ...]
    workers: int
    """Live workers; 0: the backend is known, and its jobs wait for one to start."""
    models: int
    warm: Annotated[tuple[str, ...], Field(max_length=8)]
    """Models in memory, the first eight."""
    loading: tuple[str, ...]


class RedisState(WireModel):
    """The memory of Redis, for admins."""

    used_bytes: int
    max_bytes: int | None
    """`maxmemory`; null if Redis has no such bound."""


class FleetState(WireModel):
    """The fleet as one tenant sees it: sums over all queues, and what is behind them."""

    at: float
    """Unix seconds, by Redis's clock."""
    concerns: tuple[Concern, ...]
    """The most urgent first."""
    waiting: int
    delayed: int
    running: int
    ended: tuple[int, ...]
    """Jobs that ended in each of the last 15 minutes, this minute last."""
    ended_per_s: float | None
    """Over the last minutes; null if none ended."""
    first_token_ms: float | None
    """Median time of the last minute from an enqueue to the first output; null if nothing was
    answered, and until somebody has watched for some seconds."""
    tokens_per_s: float | None
    """Tokens of answers over the last minute; null until somebody has watched for some seconds."""
    dead: int | None
    """Dead letters; null for others than admins, who see only their own."""
    dead_lately: int | None
    """Those that came in the last ten minutes; null as `dead`."""
    unreadable: int | None
    redis: RedisState | None
    queues: tuple[QueueSummary, ...]
    """Queues with a worker, a job, or an end in the last 15 minutes."""
    workers: tuple[WorkerSummary, ...]
    backends: tuple[BackendSummary, ...]
    roster_revision: str
    """Changes when a backend or model does: then `GET /api/v1/models` is worth another call."""
