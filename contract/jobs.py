"""A job: one request on its way through the fleet, and the record that is kept of it."""

from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from contract.chat import ChatRequest
from contract.embeddings import EmbedRequest
from contract.events import Failed
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
from contract.wire import WireModel

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


class JobRecord(WireModel):
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


class QueuePlace(WireModel):
    """Where a waiting job stands."""

    position: int | None = None
    eta_s: float | None = None
    reason: str = ""


class JobAccepted(WireModel):
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


class JobPage(WireModel):
    """Some records, newest first, and the cursor to ask for the next ones with."""

    jobs: tuple[JobRecord, ...]
    next: str | None = None


class DeadLetter(JobRecord):
    """A dead job's record, and what it died of."""

    error: Failed | None = None
    """Its last word; None if its log has expired meanwhile."""


class DeadView(DeadLetter):
    """A dead letter with all that is needed to judge it."""

    request: dict[str, Any]
    """What was asked for, as a request of that kind has it, without what is the default."""


class DeadPage(WireModel):
    """Some dead letters, the last to die first, and the cursor to ask for the next ones with."""

    letters: tuple[DeadLetter, ...]
    next: str | None = None
    unreadable: int | None = None
    """Messages kept that no worker could read, for admins; null for others."""


class DeadMessage(WireModel):
    """Something that stood in a queue's list and was neither a ticket nor a job."""

    id: str
    queue: str
    at: float
    """Unix seconds at which a worker set it aside."""
    reason: str
    size_bytes: int
    data: str
    """Base64 of its first bytes, 64 KiB at the most."""
    job_id: str | None = None
    """The failed job that stands for it, where the message had a task id."""


class DeadMessages(WireModel):
    """The newest of them; the oldest are dropped where there are more than 1,000."""

    messages: tuple[DeadMessage, ...]
    total: int
    """How many were set aside since there were none."""


class DeadPurged(WireModel):
    """How many dead letters were forgotten."""

    purged: int
    next: str | None = None
    """There may be more: purge again, with this as `before`."""
