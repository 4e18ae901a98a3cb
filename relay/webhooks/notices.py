"""What the outbox says of an end, and the events that receivers get for it. Pure.

A notice is written in the script of the last event of a job, or that ends a batch. Its events have
ids that follow from it, so that they are the same however often it is read.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Final, Literal, NamedTuple

from contract.batches import Batch, LastStatus
from contract.chat import ChatRequest
from contract.events import Cancelled, Done, Event, Failed
from contract.jobs import AnyRequest, JobRecord
from contract.json_lines import json_line
from contract.webhooks.webhook_models import EventType, Family
from contract.wire import WireModel, encode

_INCOMPLETE: Final = frozenset({"length", "content_filter"})
"""Finish reasons of a response that is cut off, unless it has a refusal: that is its answer."""
_MESSAGES: Final = "/v1/messages"
"""The endpoint of a batch of Anthropic's clients, whose ids are `msgbatch_...`."""
_LONGEST_MESSAGE: Final = 500
"""Characters of an error that an event repeats."""
_JOB: Final[dict[str, EventType]] = {
    "done": "job.done",
    "failed": "job.failed",
    "cancelled": "job.cancelled",
}
_RESPONSE: Final[dict[str, EventType]] = {
    "done": "response.completed",
    "failed": "response.failed",
    "cancelled": "response.cancelled",
}
_BATCH: Final[dict[str, EventType]] = {
    "completed": "batch.completed",
    "failed": "batch.failed",
    "expired": "batch.expired",
    "cancelled": "batch.cancelled",
}


class Notice(WireModel):
    """A job or batch that has ended."""

    family: Family | Literal["batch"]
    """`response` is a job that is a response of `/v1/responses`, too."""
    id: str
    """Of the job or batch."""
    tenant: str
    status: str
    url: str | None = None
    """Where its request wants it posted, besides the tenant's webhooks."""
    kind: str = ""
    model: str | None = None
    created_at: float
    finish_reason: str | None = None
    has_refused: bool = False
    """Whether the model has refused, in words."""
    code: str | None = None
    message: str | None = None
    """Of the error, or why it was cancelled."""
    forget: Literal[True] | None = None
    """Whether its job has a retention of its own: what is told of it is not kept afterwards."""


class WebhookEvent(NamedTuple):
    """An event as it is posted."""

    id: str
    type: EventType
    subject: str
    """The id that a client knows: of the job, response or batch."""
    at: float
    """When it ended, in unix seconds."""
    body: str
    """JSON, the same in each try."""


def family_of(request: AnyRequest, *, is_told: bool) -> Family | None:
    """Which names the end of a request's job has; None if nobody is told.

    `is_told`: its tenant's webhooks are, whether or not it names an address of its own.
    """
    if not is_told and request.callback_url is None:
        return None
    is_response = isinstance(request, ChatRequest) and request.response_notes is not None
    return "response" if is_response else "job"


def job_notice(record: JobRecord, last: Event, *, has_refused: bool = False) -> bytes:
    """The notice of a job that its worker ends with this event; empty if nobody is told.

    `has_refused`: the answer holds a refusal.
    """
    if record.webhook is None:
        return b""
    failed = last if isinstance(last, Failed) else None
    notice = Notice(
        family=record.webhook,
        id=record.id,
        tenant=record.tenant,
        status=last.type,
        url=record.callback_url,
        kind=record.kind,
        model=record.model,
        created_at=record.created_at,
        finish_reason=last.finish_reason if isinstance(last, Done) else None,
        has_refused=has_refused,
        code=failed and failed.code,
        message=last.reason if isinstance(last, Cancelled) else failed and failed.message,
        forget=None if record.retention_s is None else True,
    )
    return encode(notice)


def batch_notice(batch: Batch, status: LastStatus) -> bytes:
    """The notice of a batch that ends with this status; empty if nobody is told."""
    if not batch.announced:
        return b""
    notice = Notice(
        family="batch",
        id=batch.id,
        tenant=batch.tenant.name,
        status=status,
        url=batch.callback_url,
        kind=batch.endpoint,
        created_at=batch.created_at,
    )
    return encode(notice)


def types_of(notice: Notice) -> Iterator[EventType]:
    """The events of an end; the last one is what its request's own address gets."""
    if notice.family == "batch":
        yield _BATCH[notice.status]
        return
    yield _JOB[notice.status]
    if notice.family == "response":
        is_cut = notice.finish_reason in _INCOMPLETE and not notice.has_refused
        yield "response.incomplete" if is_cut else _RESPONSE[notice.status]


def event_of(notice: Notice, type_: EventType, at: float) -> WebhookEvent:
    """One event of an end, which was at `at` (unix seconds)."""
    digest = blake2b(f"{type_} {notice.id}".encode(), digest_size=16).hexdigest()
    event_id = f"evt_{digest}"
    subject = _subject(notice, type_)
    body: dict[str, Any] = {
        "id": event_id,
        "object": "event",
        "type": type_,
        "created_at": int(at),
        "timestamp": _rfc3339(at),
        "data": {"id": subject},
    }
    if type_.startswith("job."):
        body["data"] = _job_data(notice, at)
    return WebhookEvent(event_id, type_, subject, at, json_line(body).decode())


def _subject(notice: Notice, type_: EventType) -> str:
    """The id of what has ended, as the client that made it knows it."""
    if type_.startswith("response."):
        return f"resp_{notice.id}"
    is_of_messages = notice.family == "batch" and notice.kind == _MESSAGES
    return f"msg{notice.id}" if is_of_messages else notice.id


def _job_data(notice: Notice, at: float) -> dict[str, Any]:
    data: dict[str, Any] = {
        "id": notice.id,
        "object": "job",
        "status": notice.status,
        "kind": notice.kind,
        "model": notice.model,
        "created_at": notice.created_at,
        "ended_at": at,
    }
    if notice.finish_reason is not None:
        data["finish_reason"] = notice.finish_reason
    message = (notice.message or "")[:_LONGEST_MESSAGE]
    if notice.status == "failed":
        data["error"] = {"code": notice.code, "message": message}
    elif notice.status == "cancelled":
        data["reason"] = message
    return data


def _rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
