"""Reports of workers: their backends, models and queues. The shim knows nothing else of them."""

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import Field

from contract.features import Feature
from contract.requests import Kind
from contract.wire import WireModel

Capability = Literal["chat", "embed", "pull", "image", "show", "list", "running", "delete", "copy",
                     "create", "load", "unload", "count", "rerank"]  # fmt: skip
"""Kinds of jobs that a backend has a method for."""

ModelTrait = Literal[
    "chat", "embed", "image", "rerank", "vision", "tools", "thinking", "schema"
]  # fmt: skip
"""What one model can do, if the server reports it."""


class ModelReport(WireModel):
    """One model of a backend. Numbers are None if the server does not report them."""

    name: str
    traits: tuple[ModelTrait, ...] = ()
    lacks: tuple[ModelTrait, ...] = ()
    """Traits that the model is known not to have; a trait in neither list is unknown."""
    warm: bool | None = None
    """Whether it is in memory now."""
    context_length: int | None = None
    """Tokens."""
    max_output_tokens: int | None = None
    """Longest answer, in tokens."""
    dimension: int | None = None
    """Length of its vectors."""
    packs: bool | None = None
    """Whether texts of several jobs are packed into one request: the vectors are then the same."""
    size_bytes: int | None = None


class EndpointReport(WireModel):
    """One of a backend's addresses as one worker sees it."""

    address: str
    """Without credentials; for others than admins its label."""
    label: str = ""
    """Its name in events and for tenants, as in `box/2`: the second address of this worker."""
    healthy: bool
    error: str | None = None
    """Why it is not healthy."""
    circuit_open_until: float | None = None
    """Unix seconds until which it gets no jobs, because it failed repeatedly."""
    in_flight: Annotated[int, Field(ge=0)] = 0
    """Jobs of this worker that run on it."""


class BackendReport(WireModel):
    """A backend as one worker sees it."""

    name: str
    type: str
    endpoint: str
    """Address without credentials; the first one if there are several. For others than admins its
    label."""
    endpoints: tuple[EndpointReport, ...] = ()
    """Every address."""
    healthy: bool
    """Whether at least one of them is."""
    error: str | None = None
    """Why none is healthy."""
    version: str | None = None
    capabilities: tuple[Capability, ...] = ()
    grants: tuple[Feature, ...] | None = None
    """Optional features that it supports; None is unknown."""
    models: tuple[ModelReport, ...] = ()


class QueueReport(WireModel):
    """A worker's share of a queue."""

    name: str
    kind: Kind
    slots: Annotated[int, Field(ge=0)]
    in_flight: Annotated[int, Field(ge=0)]
    loading: str | None = None
    """Model that the backend is loading, for which jobs of other models wait."""
    circuit_open_until: float | None = None
    """Unix seconds until which nothing is claimed, because the backend failed repeatedly."""
    model_circuits: dict[str, float] | None = None
    """Models whose jobs are not claimed, because they failed repeatedly, and the unix seconds until
    which. Left out if there is none."""


class WorkerReport(WireModel):
    """What a worker reports every few seconds."""

    v: int
    name: str
    host: str | None = None
    """Null for others than admins, as `pid` and `metrics_url`."""
    pid: int | None = None
    started_at: float
    """Unix seconds."""
    draining: bool = False
    metrics_url: str | None = None
    """Where the worker serves its metrics; None if it serves none."""
    version: str | None = None
    """Of the package llm-fleet there."""
    backends: tuple[BackendReport, ...]
    queues: tuple[QueueReport, ...]


class KnownBackend(WireModel):
    """A backend for which jobs may wait while no worker of it is live."""

    backend: BackendReport
    """What its worker last reported, without what changes: health, models in memory."""
    slots: dict[str, Annotated[int, Field(ge=0)]]
    """Slots of one worker by queue, as in `{"box.chat": 4}`."""
    last_seen_at: float | None = None
    """Unix seconds at which a worker last wrote this, every few minutes; null: configured."""


class QueueDemand(WireModel):
    """The workers that a queue wants."""

    queue: str
    workers: Annotated[int, Field(ge=0)]
    """Those that its jobs fill, and at least those that hold one."""
    waiting: Annotated[int, Field(ge=0)]
    """Jobs that wait, for their turn or for their next attempt, and messages of other Celery
    applications that no worker has taken yet."""
    running: Annotated[int, Field(ge=0)]
    """Jobs that a worker holds."""
    paused: bool = False
    """Whether no job of it starts now: then it wants the workers that hold one, and no more."""
    busy: Annotated[int, Field(ge=0)]
    """Workers that hold one."""
    slots: Annotated[int, Field(ge=1)]
    """Jobs of the queue that one worker runs at once."""


def workers_wanted(waiting: int, running: int, slots: int, busy: int) -> int:
    """How many workers these jobs fill, `slots` each; never fewer than are busy."""
    return max(-(-(waiting + running) // max(slots, 1)), busy)


class QueuePause(WireModel):
    """Why no job of a queue starts now."""

    by: Literal["admin", "windows"]
    """An admin paused it, or it is outside its run windows."""
    reason: Annotated[str, Field(max_length=200)] = ""
    """What the admin wrote."""
    since: float | None = None
    """Unix seconds; null if it was more than a week ago."""
    until: float | None = None
    """Unix seconds at which its jobs start again; null if that is not known."""

    @property
    def text(self) -> str:
        """The same as a phrase, for the reason why a job waits."""
        until = "" if self.until is None else f" until {utc(self.until)}"
        if self.by == "windows":
            return f"the queue is outside its run windows{until}"
        return f"the queue is paused{until}{f' ({self.reason})' if self.reason else ''}"


def utc(unix: float) -> str:
    """A time as text: `2026-11-29 22:00 UTC`."""
    return f"{datetime.fromtimestamp(unix, UTC):%Y-%m-%d %H:%M} UTC"


class QueueView(WireModel):
    """A queue over all workers, as HTTP shows it."""

    name: str
    depth: int
    """Waiting jobs."""
    delayed: int = 0
    """Jobs between two attempts, and scheduled ones that are due within 90 s; not in `depth`."""
    scheduled: int = 0
    """Jobs that are due later, or wait for other jobs."""
    tokens: int = 0
    """Estimated tokens of the waiting jobs."""
    kept_bytes: int = 0
    """Bytes of the requests of all jobs that no worker holds."""
    oldest_s: float | None
    """Seconds that the oldest waiting job has waited."""
    in_flight: int
    slots: int
    workers: int
    drain_per_s: float | None
    """Ended jobs per second, measured over the last minutes; null if there were none."""
    eta_s: float | None = None
    """Seconds until a job enqueued now would start, at that rate; null if unknown."""
    paused: QueuePause | None = None
    """Why none of its jobs starts now; null if they do."""
    windows: tuple[str, ...] = ()
    """Its run windows, as in `22:00-06:00 Europe/Berlin`; empty: it runs at any time."""


class QueueTimes(WireModel):
    """When a queue's jobs run."""

    name: str
    paused: QueuePause | None = None
    """Why none of its jobs starts now; null if they do."""
    windows: tuple[str, ...] = ()
    """Its run windows; empty: it runs at any time."""


class FleetLimit(WireModel):
    """A limit of the fleet, and how full it is."""

    what: str
    """As in `memory of Redis`, `jobs of tenant research` (while that memory is nearly full),
    `jobs in queue box.chat`, `files of tenant research` (their bytes), `number of files of tenant
    research`."""
    held: int
    limit: int
    unit: Literal["bytes", "jobs", "tokens", "files"]
    """Of both."""
    setting: str
    """What changes it."""


class FleetLimits(WireModel):
    """The limits of the fleet; those of queues and tenants that have anything, the fullest."""

    limits: tuple[FleetLimit, ...]
