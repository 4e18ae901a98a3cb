"""Jobs: the record of a request that was enqueued, and the views of it that HTTP returns."""

from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from contract.chat import ChatRequest, CountRequest
from contract.conversations import ConversationPolicy
from contract.embeddings import EmbedRequest
from contract.errors import JobNotKept
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
from contract.rerank import RerankRequest
from contract.result import Result, Status
from contract.webhooks.webhook_models import Family
from contract.wire import WireModel

AnyRequest = Annotated[
    ChatRequest | EmbedRequest | PullRequest | ImageRequest | ShowRequest | ListRequest
    | RunningRequest | DeleteRequest | CopyRequest | CreateRequest | LoadRequest | UnloadRequest
    | CountRequest | RerankRequest,
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
    "count": CountRequest,
    "rerank": RerankRequest,
}

TASKS: dict[str, Kind] = {f"fleet.{kind}": kind for kind in REQUESTS}
"""Kinds of jobs by the Celery task that other applications send for them."""


class JobSummary(WireModel):
    """What lists have of a job; times are unix seconds by Redis's clock."""

    id: str
    v: int
    kind: Kind
    status: Status
    queue: str
    backend: str
    model: str | None = None
    alias: str | None = None
    """The model as the client named it, if that is an alias: `model` is one that it stands for."""
    target: int = 0
    """How far the job has moved along the targets of its alias."""
    tenant: str
    priority: Priority
    attempt: int
    """Incremented whenever another worker gets the job; the first part of its events' ids."""
    tries: int = 0
    """Number of starts, without those that a worker gave back when it shut down."""
    lost: int = 0
    """Number of workers that died while they ran it; after two it runs apart from other jobs."""
    max_attempts: int
    nonce: str | None = None
    """Random text of the current attempt, which differs even if a restored Redis uses the
    attempt's number again."""
    created_at: float
    deadline_at: float | None = None
    started_at: float | None = None
    """When the current or last attempt was claimed."""
    ended_at: float | None = None
    on_disconnect: OnDisconnect = "continue"
    """What to do with it when its last follower has left."""
    busy_wait_s: float | None = None
    """Seconds for which it is retried while its backend is busy; null: until its deadline."""
    retention_s: int | None = None
    """Seconds for which its texts are kept after its end, 0: not at all; null: FLEET_LOG_TTL_S."""
    worker: str | None = None
    """The worker that runs it, or ran it last."""
    dead_at: float | None = None
    """When it ran out of attempts and became a dead letter."""
    retry_of: str | None = None
    """The dead job that this one repeats."""
    retried_as: str | None = None
    """The job that repeats this dead one."""
    price: str | None = None
    """What its model cost when it was enqueued: `contract.usage.ModelPrice` as JSON."""
    reserved_tokens: int | None = None
    """Tokens that are reserved for it, if its tenant has a limit of tokens or money."""
    answer_limit: int | None = None
    """Completion tokens after which its answer is cut off, because the request sets no bound and
    its tenant has such a limit."""
    not_before: float | None = None
    """When it may start at the earliest."""
    after: tuple[str, ...] = ()
    """Jobs that must be done before it may start."""
    after_any: tuple[str, ...] = ()
    """Jobs that must have ended before."""
    blocked: bool = False
    """Whether it waits for any of these jobs."""
    freed_at: float | None = None
    """When the last of them had ended."""
    conversation: str | None = None
    """The client's name for the conversation that it continues."""
    conversation_policy: ConversationPolicy | None = None
    """What it does while an earlier message of the conversation has not ended."""
    webhook: Family | None = None
    """What its end is called to webhooks; null if nobody is told."""
    callback_url: str | None = None
    """Where its request wants its end posted."""
    traceparent: str | None = None
    """The span that enqueued it, as W3C's Trace Context writes it; null if there was none."""
    tracestate: str | None = None
    """What other tracing systems have added to it."""

    @property
    def ready_at(self) -> float:
        """From when on it could start, in unix seconds: its creation, unless it was scheduled."""
        return max(self.created_at, self.not_before or 0.0, self.freed_at or 0.0)


class JobRecord(JobSummary):
    """A job's record, whole."""

    metadata: dict[str, Any] = Field(default_factory=dict)
    """The client's own data."""


class QueuePlace(WireModel):
    """The position of a waiting job."""

    position: int | None = None
    eta_s: float | None = None
    reason: str = ""
    is_paused: bool = False
    """Whether the reason is that its queue is paused."""
    is_scheduled: bool = False
    """Whether it does not wait for a worker yet, but for a time or for other jobs."""


class JobAccepted(WireModel):
    """The response to an enqueue."""

    id: str
    status: Status
    queue: str
    position: int | None
    eta_s: float | None
    reason: str = ""
    """Why it waits."""
    events_url: str


class JobView(JobRecord):
    """A record, the job's position in its queue, and its result so far."""

    position: int | None = None
    eta_s: float | None = None
    reason: str = ""
    result: Result


class JobPage(WireModel):
    """A page of jobs, newest first, and the cursor of the next page.

    It has no metadata, no requests and no results: those are read of one job at a time.
    """

    jobs: tuple[JobSummary, ...]
    next: str | None = None


class ScheduledPage(WireModel):
    """Jobs that may not start yet, the next first; those that wait for others are last."""

    jobs: tuple[JobSummary, ...]
    complete: bool
    """Whether these are all."""


class DeadLetter(JobSummary):
    """What lists have of a dead job: what they have of any, and its error."""

    error: Failed | None = None
    """Its terminal event; None if its log has expired."""


class DeadView(DeadLetter):
    """A dead letter with its metadata and its request."""

    metadata: dict[str, Any] = Field(default_factory=dict)
    request: dict[str, Any]
    """The request, without the fields that have their default."""


class DeadPage(WireModel):
    """A page of dead letters, the last to die first, and the cursor of the next page."""

    letters: tuple[DeadLetter, ...]
    next: str | None = None
    unreadable: int | None = None
    """Number of stored messages that no worker could read, for admins; null for others."""


class DeadGroup(WireModel):
    """Dead letters that failed alike: same kind, model, error code, and text but for numbers."""

    fingerprint: str
    count: int
    kind: Kind
    model: str | None
    code: str
    """Of the error; empty if its log has expired."""
    message: str
    """That of the newest one."""
    queues: tuple[str, ...]
    tenants: tuple[str, ...]
    first_at: float
    """Unix seconds at which the first of them died."""
    last_at: float
    newest: tuple[str, ...]
    """Ids of the newest five."""


class DeadGroups(WireModel):
    """Dead letters by how they failed, the largest group first."""

    groups: tuple[DeadGroup, ...]
    counted: int
    """Letters that were read."""
    complete: bool
    """Whether these are all; the number of letters that one call reads is bounded."""


class DeadMessage(WireModel):
    """An entry of a queue's list that was neither a ticket nor a job."""

    id: str
    queue: str
    at: float
    """Unix seconds at which a worker stored it."""
    reason: str
    size_bytes: int
    data: str
    """Base64 of its first bytes, at most 64 KiB, and less in a list of more than 64 messages."""
    job_id: str | None = None
    """The failed job that was made for it, if the message had a task id."""


class DeadMessages(WireModel):
    """The newest unreadable messages; of more than 1,000 the oldest are dropped."""

    messages: tuple[DeadMessage, ...]
    total: int
    """Number of messages that were stored since the last purge or expiry."""


class DeadPurged(WireModel):
    """The number of deleted dead letters or messages."""

    purged: int
    next: str | None = None
    """Cursor to purge the rest with, as `before`; null if there is none."""


def not_kept(job_id: str) -> JobNotKept:
    """The error for what is asked of a job whose retention is `none`, after its end."""
    return JobNotKept(
        f"job {job_id[:64]} has ended, and its request and answer were removed then, because "
        "its retention is none: follow such a job from its start"
    )
