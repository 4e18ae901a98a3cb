"""Message batches under /v1/messages/batches: requests in, one line for each result out.

They are batches of the endpoint /v1/messages, driven like those of files: the requests become an
input file, and the results are the lines of the output and error file, rendered as Anthropic's.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from functools import partial
from hashlib import blake2b
from typing import Annotated, Any, Final
from uuid import uuid4

import anyio.to_thread
from fastapi import APIRouter, Path, Query, Request, Response

from api_shim.anthropic import batch_objects
from api_shim.anthropic.batch_objects import ENDPOINT, REQUESTS, InputLines, NotRun
from api_shim.anthropic.schemas import (
    DeletedMessageBatch,
    MessageBatch,
    MessageBatchList,
    MessageBatchParams,
    anthropic_faults,
)
from api_shim.batch.http_responses import LinesDownload
from api_shim.batch.lines import split_lines
from api_shim.batch.supported_endpoints import check_batch
from api_shim.dependencies import Dependencies, Injected
from api_shim.file_storage import PIECE_BYTES
from api_shim.http.authentication import Caller
from api_shim.http.headers import (
    BackendHeader,
    IdempotencyKey,
    NotBeforeHeader,
    WebhookHeader,
)
from api_shim.http.json_body import made_of_large, parse_held, read_body, require_json, take_body
from api_shim.http.problems import Refusal
from api_shim.submission.ignored_fields import HEADER, header_value
from contract.batches import BATCH_ID, ENDED, Batch, NewBatch, StoredFile
from contract.errors import UnknownBatch, UnknownFile
from contract.json_lines import json_line
from contract.json_texts.json_scan import JsonBounds
from contract.tenants import Tenant
from relay.batches import no_batch
from relay.files import Order, stored_name
from relay.scheduling.later import check_time

router = APIRouter(prefix="/v1/messages/batches", tags=["anthropic"])

MessageBatchId = Annotated[str, Path(description="`msgbatch_` and 32 hexadecimal digits.")]
_WINDOW_S: Final = 86400
_PAGE: Final = 100
_MOST_PAGES: Final = 20
"""Pages of the tenant's batches that a listing looks through for message batches."""
_LONGEST_PAGE: Final = 1000
_MOST_KNOWN: Final = 1000
_NOT_RUN: Final[dict[str, NotRun]] = {}
"""By batch: what was counted in error files, which do not change once they exist."""

_BOUNDS: Final = JsonBounds(strings=2_000_000, containers=800_000, values=2_000_000)
"""Of all requests of a batch together: a hundred thousand short ones have half of it."""

_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": MessageBatchParams.model_json_schema()}},
    }
}


@router.post(
    "",
    operation_id="anthropic_create_message_batch",
    response_model=MessageBatch,
    responses=anthropic_faults(400, 409, 413, 429, 529),
    openapi_extra=_BODY,
)
async def create(
    request: Request,
    dependencies: Injected,
    caller: Caller,
    *,
    key: IdempotencyKey = None,
    backend: BackendHeader = None,
    not_before: NotBeforeHeader = None,
    webhook: WebhookHeader = None,
) -> Response:
    """Create a batch; its requests run as jobs of priority `batch`, for a day at most."""
    require_json(request.headers)
    check_batch(caller, ENDPOINT, backend)
    check_time(not_before, dependencies.connection.now())
    most = dependencies.settings.batch_max_rows
    lines = await read_body(await take_body(request), lambda held: _lines_of(held, most))
    file, is_new = await _stored(lines.data, dependencies, caller, key)
    new = NewBatch(
        endpoint=ENDPOINT,
        input_file_id=file.id,
        window_s=_WINDOW_S,
        completion_window="24h",
        metadata={REQUESTS: str(lines.total)},
        backend=backend,
        not_before=not_before,
        output_ttl_s=dependencies.settings.file_ttl_s,
        callback_url=webhook,
    )
    most = dependencies.settings.tenant_batches
    try:
        announced = await dependencies.webhooks.is_told(caller.name, webhook)
        batch = await dependencies.batches.create(
            new, caller, most=most, key=key, announced=announced
        )
    except Exception:
        if is_new:
            await _delete_file(file.id, dependencies, caller)
        raise
    dependencies.batches_changed.set()
    return _json(_object(batch, request, NotRun()), lines.left_out)


def _lines_of(held: list[bytes], most: int) -> InputLines:
    return batch_objects.to_lines(parse_held(held, _BOUNDS), most)


async def _stored(
    lines: bytes, dependencies: Dependencies, tenant: Tenant, key: str | None
) -> tuple[StoredFile, bool]:
    """The input file with these lines, and whether it is new.

    The same lines with the same Idempotency-Key are the same file, so that they are one batch.
    """
    file_id = f"file-{uuid4().hex}"
    if key:
        file_id = f"file-{await made_of_large(partial(_digest, tenant.name, key, lines))}"
        with suppress(UnknownFile):
            return await dependencies.files.get_for_tenant(file_id, tenant), False
    name = stored_name(file_id)
    await dependencies.storage.demand_room(len(lines))
    await dependencies.file_room.reserve(name, tenant.name, len(lines), len(lines))
    async with dependencies.storage.write(name) as writing:
        for start in range(0, len(lines), PIECE_BYTES):  # all at once is a copy on the event loop
            await writing.write(lines[start : start + PIECE_BYTES])
    file = StoredFile(
        id=file_id,
        tenant=tenant.name,
        filename="message_batch.jsonl",
        purpose="batch",
        size_bytes=len(lines),
        expires_at=0.0,
    )
    created = await dependencies.files.create(file, ttl_s=dependencies.settings.file_ttl_s)
    return created, True


def _digest(tenant: str, key: str, lines: bytes) -> str:
    found = blake2b(f"{tenant} {key} ".encode(), digest_size=16)
    found.update(lines)
    return found.hexdigest()


@router.get(
    "",
    operation_id="anthropic_list_message_batches",
    response_model=MessageBatchList,
    responses=anthropic_faults(400, 404, 529),
)
async def page(
    request: Request,
    dependencies: Injected,
    caller: Caller,
    *,
    after_id: Annotated[str | None, Query(description="Id of the last batch of a page.")] = None,
    before_id: Annotated[str | None, Query(description="Id of the first batch of a page.")] = None,
    limit: Annotated[int, Query(ge=1, le=_LONGEST_PAGE)] = 20,
) -> Response:
    """List the caller's message batches, newest first."""
    cursor, order = (after_id, "desc") if before_id is None else (before_id, "asc")
    after = None if cursor is None else _checked(cursor)
    found = await _found(dependencies, caller, after, "asc" if order == "asc" else "desc", limit)
    batches = found[:limit] if order == "desc" else found[:limit][::-1]
    data = [await _rendered(batch, request, dependencies) for batch in batches]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else _NO_ENDS
    return _json({"data": data, **ends, "has_more": len(found) > limit})


async def _found(
    dependencies: Dependencies, tenant: Tenant, after: str | None, order: Order, limit: int
) -> Sequence[Batch]:
    """Message batches from a cursor on, one more than `limit` if there are as many."""
    found: list[Batch] = []
    for _ in range(_MOST_PAGES):
        try:
            page = await dependencies.batches.page(tenant, limit=_PAGE, after=after, order=order)
        except UnknownBatch as error:
            if found:  # it was deleted meanwhile
                break
            raise no_batch(batch_objects.message_batch_id(after or "")) from error
        found += [batch for batch in page.batches if batch.endpoint == ENDPOINT]
        if len(found) > limit or not (page.has_more and page.batches):
            break
        after = page.batches[-1].id
    return found


@router.get(
    "/{id}",
    operation_id="anthropic_get_message_batch",
    response_model=MessageBatch,
    responses=anthropic_faults(404, 529),
)
async def get(
    id: MessageBatchId, request: Request, dependencies: Injected, caller: Caller
) -> Response:
    """Get a batch: its status and counts."""
    batch = await _batch(id, dependencies, caller)
    return _json(await _rendered(batch, request, dependencies))


@router.post(
    "/{id}/cancel",
    operation_id="anthropic_cancel_message_batch",
    response_model=MessageBatch,
    responses=anthropic_faults(404, 409, 529),
)
async def cancel(
    id: MessageBatchId, request: Request, dependencies: Injected, caller: Caller
) -> Response:
    """Cancel a batch; results so far are kept. Idempotent."""
    batch = await dependencies.batches.cancel(await _batch(id, dependencies, caller))
    return _json(await _rendered(batch, request, dependencies))


@router.delete(
    "/{id}",
    operation_id="anthropic_delete_message_batch",
    response_model=DeletedMessageBatch,
    responses=anthropic_faults(400, 404, 529),
)
async def delete(id: MessageBatchId, dependencies: Injected, caller: Caller) -> Response:
    """Delete a batch that has ended, with its files."""
    batch = await _batch(id, dependencies, caller)
    _demand_end(batch, id, "cancel it first")
    for file_id in (batch.input_file_id, batch.output_file_id, batch.error_file_id):
        if file_id is not None:
            await _delete_file(file_id, dependencies, caller)
    await dependencies.batches.delete(batch)
    return _json({"id": id, "type": "message_batch_deleted"})


@router.get(
    "/{id}/results",
    operation_id="anthropic_get_message_batch_results",
    response_class=Response,
    responses={
        200: {
            "content": {"application/x-jsonl": {"schema": {"type": "string"}}},
            "description": 'A line for each request: `{"custom_id", "result"}`, in no order.',
        },
        **anthropic_faults(400, 404, 529),
    },
)
async def results(id: MessageBatchId, dependencies: Injected, caller: Caller) -> Response:
    """Download the results of a batch that has ended; they are streamed."""
    batch = await _batch(id, dependencies, caller)
    _demand_end(batch, id, "wait until it has")
    download = LinesDownload(_results(batch, dependencies), dependencies.open_calls)
    await download.begin()
    return download


async def _results(batch: Batch, dependencies: Dependencies) -> AsyncGenerator[bytes, None]:
    for file_id in filter(None, (batch.output_file_id, batch.error_file_id)):
        pieces = dependencies.storage.read(stored_name(file_id))
        async with aclosing(split_lines(pieces, _LONGEST_LINE_BYTES)) as blocks:
            async for block in blocks:
                texts = [line.text for line in block if line.text is not None]
                yield await anyio.to_thread.run_sync(_rendered_lines, texts)


_LONGEST_LINE_BYTES: Final = 2**30


def _rendered_lines(texts: Sequence[bytes]) -> bytes:
    return b"".join(map(batch_objects.result_line, texts))


async def _batch(id: str, dependencies: Dependencies, tenant: Tenant) -> Batch:
    try:
        batch = await dependencies.batches.get_for_tenant(_checked(id), tenant)
    except UnknownBatch:
        raise no_batch(id) from None  # by the id that the client knows
    if batch.endpoint != ENDPOINT:
        raise no_batch(id)
    return batch


def _checked(id: str) -> str:
    """The batch's own id; raises UnknownBatch, so that nothing else becomes a Redis key."""
    own = batch_objects.own_id(id)
    if not BATCH_ID.match(own):
        raise no_batch(id)
    return own


def _demand_end(batch: Batch, id: str, remedy: str) -> None:
    if batch.status not in ENDED:
        raise Refusal("batch_not_ended", f"The batch {id} has not ended: {remedy}.", status=400)


async def _delete_file(file_id: str, dependencies: Dependencies, tenant: Tenant) -> None:
    with suppress(UnknownFile):
        await dependencies.files.delete(await dependencies.files.get_for_tenant(file_id, tenant))


async def _rendered(batch: Batch, request: Request, dependencies: Dependencies) -> dict[str, Any]:
    return _object(batch, request, await _not_run(batch, dependencies))


async def _not_run(batch: Batch, dependencies: Dependencies) -> NotRun:
    """Requests that did not run to their end, counted once in the batch's error file."""
    if batch.status not in {"cancelled", "expired"} or batch.error_file_id is None:
        return NotRun()
    if batch.id not in _NOT_RUN:
        found = NotRun()
        with suppress(UnknownFile):
            pieces = dependencies.storage.read(stored_name(batch.error_file_id))
            async with aclosing(split_lines(pieces, _LONGEST_LINE_BYTES)) as blocks:
                async for block in blocks:
                    more = batch_objects.not_run_in(b"\n".join(line.text or b"" for line in block))
                    found = NotRun(found.canceled + more.canceled, found.expired + more.expired)
        while len(_NOT_RUN) >= _MOST_KNOWN:
            del _NOT_RUN[next(iter(_NOT_RUN))]
        _NOT_RUN[batch.id] = found
    return _NOT_RUN[batch.id]


def _object(batch: Batch, request: Request, not_run: NotRun) -> dict[str, Any]:
    is_secure = request.headers.get("x-forwarded-proto") == "https"
    base = request.base_url.replace(scheme="https") if is_secure else request.base_url
    return batch_objects.batch_object(batch, str(base).rstrip("/"), not_run)


def _json(value: Mapping[str, Any], left_out: Sequence[str] = ()) -> Response:
    named = {HEADER: header_value(left_out)} if left_out else {}
    headers = {"Cache-Control": "no-store", **named}
    return Response(json_line(value), 200, headers, media_type="application/json")


_NO_ENDS: Final = {"first_id": None, "last_id": None}
