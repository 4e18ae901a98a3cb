"""A job: one request on its way through the fleet, and the record that is kept of it."""

from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from contract.chat import ChatRequest
from contract.embeddings import EmbedRequest
from contract.images import ImageRequest
from contract.models import (
    CopyRequest,
    CreateRequest,
    DeleteRequest,
    ListRequest,
    LoadRequest,
    PullRequest,
    RunningRequest,
    ShowRequest,
    UnloadRequest,
)
from contract.requests import Kind, OnDisconnect, Priority, Request
from contract.result import Result, Status
from contract.wire import Noun

AnyRequest = Annotated[
    ChatRequest | EmbedRequest | PullRequest | ImageRequest | ShowRequest | ListRequest
    | RunningRequest | DeleteRequest | CopyRequest | CreateRequest | LoadRequest | UnloadRequest,
    Field(discriminator="kind"),
]  # fmt: skip

any_request: TypeAdapter[AnyRequest] = TypeAdapter(AnyRequest)

REQUESTS: dict[Kind, type[Request]] = {
    "chat": ChatRequest,
    "embed": EmbedRequest,
    "pull": PullRequest,
    "image": ImageRequest,
    "show": ShowRequest,
    "list": ListRequest,
    "running": RunningRequest,
    "delete": DeleteRequest,
    "copy": CopyRequest,
    "create": CreateRequest,
    "load": LoadRequest,
    "unload": UnloadRequest,
}


class JobRecord(Noun):
    """The ledger's line on a job; times are unix seconds by Redis's clock."""

    id: str
    v: int
    kind: Kind
    status: Status
    queue: str
    backend: str
    model: str | None = None
    tenant: str
    priority: Priority
    attempt: int
    """Rises whenever the job changes hands; the first part of its events' ids."""
    tries: int = 0
    """How often it was begun and not given back by a worker that left in order."""
    lost: int = 0
    """How many workers died with it in hand; one that was seen with two runs apart from others."""
    max_attempts: int
    nonce: str | None = None
    """Random word of the current attempt: a number that a rolled-back Redis gives twice is not
    the same attempt."""
    created_at: float
    deadline_at: float | None = None
    started_at: float | None = None
    """When the current or last attempt was claimed."""
    ended_at: float | None = None
    on_disconnect: OnDisconnect = "continue"
    """What becomes of it when its last follower has left."""
    worker: str | None = None
    """Who runs it, or ran it last."""
    dead_at: float | None = None
    """When it ran out of attempts and became a dead letter."""
    retry_of: str | None = None
    """The dead job that this one repeats."""
    retried_as: str | None = None
    """The job that repeats this dead one."""
    metadata: dict[str, Any] = Field(default_factory=dict)


class Place(Noun):
    """Where a waiting job stands."""

    position: int | None = None
    eta_s: float | None = None
    reason: str = ""


class JobAccepted(Noun):
    """The answer to an enqueue."""

    id: str
    status: Status
    queue: str
    position: int | None
    eta_s: float | None
    events_url: str


class JobView(JobRecord):
    """A record, where the job stands, and its answer so far."""

    position: int | None = None
    eta_s: float | None = None
    reason: str = ""
    result: Result


class JobPage(Noun):
    """Some records, newest first, and the cursor to ask for the next ones with."""

    jobs: tuple[JobRecord, ...]
    next: str | None = None
