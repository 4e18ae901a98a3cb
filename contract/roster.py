"""What workers report of themselves: backends, models, queues; all the shim knows of them."""

from typing import Annotated, Literal

from pydantic import Field

from contract.features import Feature
from contract.requests import Kind
from contract.wire import WireModel

Capability = Literal["chat", "embed", "pull", "image", "show", "list", "running", "delete", "copy",
                     "create", "load", "unload"]  # fmt: skip
"""What a backend can be asked for: the kinds of jobs it has a method for."""

ModelTrait = Literal["chat", "embed", "image", "vision", "tools", "thinking", "schema"]
"""What one model can do, where the server tells."""


class ModelReport(WireModel):
    """One model of a backend. Numbers are None where the server does not tell."""

    name: str
    traits: tuple[ModelTrait, ...] = ()
    lacks: tuple[ModelTrait, ...] = ()
    """What it is known not to do; a trait in neither list is unknown."""
    warm: bool | None = None
    """Whether it is in memory now."""
    context_length: int | None = None
    """Tokens."""
    max_output_tokens: int | None = None
    """Longest answer, in tokens."""
    dimension: int | None = None
    """Numbers in an embedding."""
    packs: bool | None = None
    """Whether texts of several jobs share requests: their vectors are the same as each alone."""
    size_bytes: int | None = None


class EndpointReport(WireModel):
    """One of a backend's addresses as one worker sees it."""

    address: str
    """Without credentials."""
    healthy: bool
    error: str | None = None
    """Why it is not healthy, in words."""
    circuit_open_until: float | None = None
    """Unix seconds until which it gets no jobs, because it failed again and again."""
    in_flight: Annotated[int, Field(ge=0)] = 0
    """Jobs of this worker that run there."""


class BackendReport(WireModel):
    """A backend as one worker sees it."""

    name: str
    type: str
    endpoint: str
    """Address without credentials; the first one, if it has several."""
    endpoints: tuple[EndpointReport, ...] = ()
    """Every address."""
    healthy: bool
    """Whether at least one of them is."""
    error: str | None = None
    """Why none is healthy, in words."""
    version: str | None = None
    capabilities: tuple[Capability, ...] = ()
    grants: tuple[Feature, ...] | None = None
    """What requests may wish for beyond what every backend can do; None is unknown."""
    models: tuple[ModelReport, ...] = ()


class QueueReport(WireModel):
    """How much of a queue a worker takes."""

    name: str
    kind: Kind
    slots: Annotated[int, Field(ge=0)]
    in_flight: Annotated[int, Field(ge=0)]
    loading: str | None = None
    """Model that the backend brings into memory now, on which other models' jobs wait."""
    circuit_open_until: float | None = None
    """Unix seconds until which nothing is claimed, because the backend failed again and again."""
    model_circuits: dict[str, float] | None = None
    """Models whose jobs are not claimed, because they failed again and again, while others' are;
    and the unix seconds until which. Left out while there is none."""


class WorkerReport(WireModel):
    """What a worker says of itself every few seconds."""

    v: int
    name: str
    host: str
    pid: int
    started_at: float
    """Unix seconds."""
    draining: bool = False
    backends: tuple[BackendReport, ...]
    queues: tuple[QueueReport, ...]


class QueueView(WireModel):
    """A queue as a caller sees it, over all workers."""

    name: str
    depth: int
    """Jobs that wait."""
    delayed: int = 0
    """Jobs between two attempts, besides."""
    tokens: int = 0
    """Estimated tokens of the jobs that wait."""
    oldest_s: float | None
    """Seconds that the longest waiting job has waited."""
    in_flight: int
    slots: int
    workers: int
    drain_per_s: float | None
    """Jobs that ended a second, measured over the last minutes; null when none did."""
    eta_s: float | None = None
    """Seconds until a job that comes now would start, at that rate; null when unknown."""
