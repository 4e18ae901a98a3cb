"""Batches under /v1/batches: a file of requests in, a file of responses out.

Source: openai/openai-openapi, Batch; openai/openai-python, `resources/batches.py`. The completion
window may be any duration (30m, 7d), and requests may name several models; OpenAI allows 24h and
one model.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Body, Path, Query, Response
from pydantic import BaseModel, Field

from api_shim.batch.http_responses import listing, refusals
from api_shim.batch.supported_endpoints import ENDPOINTS, check_batch
from api_shim.dependencies import Dependencies, Injected
from api_shim.http.authentication import Caller
from api_shim.http.headers import (
    BackendHeader,
    IdempotencyKey,
    NotBeforeHeader,
    WebhookHeader,
)
from api_shim.http.json_body import JsonRoute
from api_shim.openai.request_fields import callback_in, invalid_field
from api_shim.submission.ignored_fields import HEADER, LenientModel, header_value, ignored
from contract.batches import (
    BATCH_ID_BEGINNING,
    FILE_ID,
    Batch,
    BatchStatus,
    Counts,
    LineError,
    NewBatch,
    StoredFile,
    window_s,
)
from contract.errors import UnknownFile
from contract.events import Usage
from contract.requests import Metadata, Word
from contract.tenants import Tenant
from contract.webhooks.webhook_models import ReceiverUrl
from relay.batches import no_batch
from relay.scheduling.later import check_time

router = APIRouter(prefix="/v1/batches", tags=["openai"], route_class=JsonRoute)

BatchId = Annotated[str, Path(description="`batch_` and 32 hexadecimal digits.")]
_LONGEST_PAGE: Final = 100
_MEBIBYTE: Final = 2**20


class ExpiresAfter(LenientModel):
    """When a file expires."""

    anchor: Literal["created_at"] = "created_at"
    seconds: Annotated[int, Field(ge=3600, le=30 * 86400)]


class BatchBody(LenientModel):
    """A batch to create."""

    input_file_id: Word
    """A file of purpose `batch`, with one JSON object a line: `{"custom_id", "method", "url",
    "body"}`.
    """
    endpoint: Word
    """The URL of all of its requests."""
    completion_window: Word = "24h"
    """A number and s, m, h or d; requests that are not done by then fail."""
    metadata: Metadata | None = None
    output_expires_after: ExpiresAfter | None = None
    callback_url: ReceiverUrl | None = None
    """Where its end is posted, an addition of ours; OpenAI's clients send `webhook` in `metadata`,
    or the header."""


class BatchErrors(BaseModel):
    """What is wrong with the input file."""

    object: Literal["list"] = "list"
    data: list[LineError]


class BatchUsage(BaseModel):
    """Tokens of all responses so far."""

    input_tokens: int
    input_tokens_details: dict[str, int]
    output_tokens: int
    output_tokens_details: dict[str, int]
    total_tokens: int


class BatchObject(BaseModel):
    """A batch."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    errors: BatchErrors | None
    input_file_id: str
    completion_window: str
    status: BatchStatus
    output_file_id: str | None
    """Set when the batch has ended, even if no request succeeded."""
    error_file_id: str | None
    """Set when the batch has ended, unless it completed without a failure."""
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: Counts
    usage: BatchUsage
    metadata: dict[str, str] | None
    not_before: int | None
    """When its first request may start, if that was yet to come; it is `validating` until then."""


class BatchList(BaseModel):
    """A page of batches; the next page begins `after` the last one."""

    object: Literal["list"] = "list"
    data: list[BatchObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


_EXAMPLES: Final[Any] = {
    "embeddings": {
        "summary": "Embeddings",
        "value": {
            "input_file_id": "file-0123456789abcdef0123456789abcdef",
            "endpoint": "/v1/embeddings",
            "completion_window": "24h",
        },
    }
}


@router.post(
    "",
    operation_id="openai_create_batch",
    response_model=BatchObject,
    responses=refusals(400, 404, 409, 413, 415, 429, 503),
)
async def create(
    body: Annotated[BatchBody, Body(openapi_examples=_EXAMPLES)],
    dependencies: Injected,
    caller: Caller,
    *,
    key: IdempotencyKey = None,
    backend: BackendHeader = None,
    not_before: NotBeforeHeader = None,
    webhook: WebhookHeader = None,
) -> Response:
    """Create a batch; its input is validated, then run as jobs of priority `batch`.

    With `X-Fleet-Not-Before` it is validated at once, and runs from then on.
    """
    if body.endpoint not in ENDPOINTS:
        raise invalid_field("endpoint", f"must be one of {', '.join(ENDPOINTS)}")
    try:
        seconds = window_s(body.completion_window)
    except ValueError as error:
        raise invalid_field("completion_window", str(error)) from None
    check_batch(caller, body.endpoint, backend)
    check_time(not_before, dependencies.connection.now())
    await _input(body.input_file_id, dependencies, caller)
    keep = body.output_expires_after
    new = NewBatch(
        endpoint=body.endpoint,
        input_file_id=body.input_file_id,
        window_s=seconds,
        completion_window=body.completion_window,
        metadata=body.metadata or {},
        backend=backend,
        not_before=not_before,
        output_ttl_s=keep.seconds if keep else dependencies.settings.file_ttl_s,
        callback_url=webhook or body.callback_url or callback_in(body.metadata),
    )
    most = dependencies.settings.tenant_batches
    announced = await dependencies.webhooks.is_told(caller.name, new.callback_url)
    batch = await dependencies.batches.create(new, caller, most=most, key=key, announced=announced)
    dependencies.batches_changed.set()
    return _answer(batch, ignored(body))


async def _input(file_id: str, dependencies: Dependencies, tenant: Tenant) -> StoredFile:
    if not FILE_ID.match(file_id):
        raise invalid_field(
            "input_file_id", "must be the id of an uploaded file, as in file-0123..."
        )
    try:
        file = await dependencies.files.get_for_tenant(file_id, tenant)
    except UnknownFile as error:
        raise invalid_field("input_file_id", error.message, error=UnknownFile) from None
    if file.purpose != "batch":
        raise invalid_field("input_file_id", f"its purpose is {file.purpose}: upload it as batch")
    most = dependencies.settings.batch_max_bytes
    if file.size_bytes > most:
        raise invalid_field(
            "input_file_id",
            f"the file has {file.size_bytes / _MEBIBYTE:.1f} MiB, and a batch may have at most "
            f"{most / _MEBIBYTE:.1f}: split it, or raise FLEET_BATCH_MAX_BYTES",
        )
    await dependencies.file_room.demand_results(tenant.name)
    return file


@router.get(
    "",
    operation_id="openai_list_batches",
    response_model=BatchList,
    responses=refusals(400, 404, 503),
)
async def page(
    dependencies: Injected,
    caller: Caller,
    after: Annotated[str | None, Query(description="Id of the last batch of a page.")] = None,
    limit: Annotated[int, Query(ge=1, le=_LONGEST_PAGE)] = 20,
) -> Response:
    """List the caller's batches, newest first."""
    if after is not None:
        _checked(after)
    found = await dependencies.batches.page(caller, limit=limit, after=after)
    objects = [_object(batch) for batch in found.batches]
    return listing(BatchList, objects, has_more=found.has_more)


@router.get(
    "/{batch_id}",
    operation_id="openai_get_batch",
    response_model=BatchObject,
    responses=refusals(404, 409, 503),
)
async def get(batch_id: BatchId, dependencies: Injected, caller: Caller) -> Response:
    """Get a batch: its status and counts."""
    return _answer(await dependencies.batches.get_for_tenant(_checked(batch_id), caller))


@router.post(
    "/{batch_id}/cancel",
    operation_id="openai_cancel_batch",
    response_model=BatchObject,
    responses=refusals(404, 409, 503),
)
async def cancel(batch_id: BatchId, dependencies: Injected, caller: Caller) -> Response:
    """Cancel a batch; results so far are kept in its output. Idempotent."""
    batch = await dependencies.batches.get_for_tenant(_checked(batch_id), caller)
    return _answer(await dependencies.batches.cancel(batch))


def _checked(batch_id: str) -> str:
    """A valid batch id or prefix; raises UnknownBatch, so that nothing else becomes a Redis key."""
    if not BATCH_ID_BEGINNING.match(batch_id):
        raise no_batch(batch_id)
    return batch_id


def _answer(batch: Batch, left_out: Sequence[str] = ()) -> Response:
    headers = {HEADER: header_value(left_out)} if left_out else {}
    data = _object(batch).model_dump_json()
    return Response(data, headers=headers, media_type="application/json")


def _object(batch: Batch) -> BatchObject:
    own = {"object", "errors", "usage", "metadata", "request_counts", "not_before"}
    fields = {
        name: _whole_seconds(getattr(batch, name)) for name in BatchObject.model_fields.keys() - own
    }
    return BatchObject(
        **fields,
        errors=BatchErrors(data=list(batch.errors)) if batch.errors else None,
        request_counts=batch.counts,
        usage=_usage(batch.usage),
        metadata=batch.metadata or None,
        not_before=None if batch.starts_at is None else int(batch.starts_at),
    )


def _whole_seconds(value: object) -> object:
    """Times are whole seconds there."""
    return int(value) if isinstance(value, float) else value


def _usage(used: Usage) -> BatchUsage:
    return BatchUsage(
        input_tokens=used.prompt_tokens,
        input_tokens_details={"cached_tokens": used.cached_tokens},
        output_tokens=used.completion_tokens,
        output_tokens_details={"reasoning_tokens": used.reasoning_tokens},
        total_tokens=used.prompt_tokens + used.completion_tokens,
    )
