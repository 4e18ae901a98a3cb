"""Dead letters over HTTP: list jobs that ran out of attempts, retry them, delete them.

A tenant has access to its own jobs, an admin to all.
"""

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Request, Response

from api_shim.access.audit_trail import note_nothing, note_subject
from api_shim.dependencies import Dependencies, Injected
from api_shim.http.authentication import Admin, Caller
from api_shim.http.headers import Preferences
from api_shim.http.problems import documented
from api_shim.native.enqueue import ACCEPTED
from api_shim.native.jobs import JobId, check_cursor, checked_id, json_response
from api_shim.submission.caller_rights import check_backend
from api_shim.submission.submission import Submission, accepted
from contract.aliases.parameters import applied
from contract.errors import JobNotFound
from contract.jobs import (
    DeadMessages,
    DeadPage,
    DeadPurged,
    DeadView,
    JobAccepted,
    JobRecord,
    JobSummary,
)
from contract.requests import Kind
from contract.tenants import Tenant
from relay.api_keys import ApiKeyTable
from relay.dead_letters import DeadLetterFilter, Retried

_LONGEST_PAGE: Final = 200

router = APIRouter(prefix="/api/v1", tags=["dead letters"])


async def _wanted(
    caller: Caller,
    queue: Annotated[str | None, Query(examples=["ollama.chat"])] = None,
    kind: Kind | None = None,
    tenant: Annotated[str | None, Query(description="For admins: of this tenant.")] = None,
) -> DeadLetterFilter:
    return DeadLetterFilter(caller, queue, kind, tenant)


Which = Annotated[DeadLetterFilter, Depends(_wanted)]
Before = Annotated[str | None, Query(description="`next` of the previous response.")]


@router.get(
    "/dead",
    operation_id="list_dead",
    response_model=DeadPage,
    responses=documented(400, 422, 503),
)
async def page(
    dependencies: Injected,
    wanted: Which,
    limit: Annotated[int, Query(ge=1, le=_LONGEST_PAGE)] = 50,
    before: Before = None,
) -> Response:
    """List dead letters, the most recent first, each with its last error.

    One that was retried is no longer listed.
    """
    check_cursor(before)
    found = await dependencies.dead_letters.page(wanted, limit=limit, before=before)
    if wanted.visible_to.admin:
        found = found.model_copy(update={"unreadable": await dependencies.unreadable.count()})
    return json_response(found)


@router.get(
    "/dead/messages",
    operation_id="list_dead_messages",
    response_model=DeadMessages,
    responses=documented(403, 422, 503),
)
async def messages(
    dependencies: Injected, _: Admin, limit: Annotated[int, Query(ge=1, le=_LONGEST_PAGE)] = 50
) -> Response:
    """List messages in queues that no worker could read, newest first; admins only."""
    return json_response(await dependencies.unreadable.page(limit=limit))


@router.delete(
    "/dead/messages",
    operation_id="purge_dead_messages",
    response_model=DeadPurged,
    responses=documented(403, 503),
)
async def purge_messages(dependencies: Injected, _: Admin) -> Response:
    """Delete all messages that no worker could read; admins only."""
    return json_response(await dependencies.unreadable.purge())


@router.get(
    "/dead/{id}",
    operation_id="get_dead",
    response_model=DeadView,
    responses=documented(404, 409, 503),
)
async def show(id: JobId, dependencies: Injected, caller: Caller) -> Response:
    """Get one dead letter: its record, its last error, and its request."""
    record = await _dead(dependencies, caller, id)
    return json_response(await dependencies.dead_letters.show(record), record.id)


@router.post(
    "/jobs/{id}/retry",
    operation_id="retry_job",
    status_code=202,
    response_model=JobAccepted,
    responses={202: ACCEPTED, **documented(404, 409, 422, 429, 503)},
)
async def retry(request: Request, id: JobId, dependencies: Injected, caller: Caller) -> Response:
    """Retry a dead letter as a new job of its tenant; idempotent."""
    record = await dependencies.records.get_for_tenant(checked_id(id), caller)
    again = await retried(dependencies, caller, record)
    note_subject(request.scope, f"job {record.id} of {record.tenant}, again as {again.record.id}")
    headers = {} if again.is_new else {"Idempotent-Replayed": "true"}
    return accepted(again.record, again.place, headers)


async def retried(dependencies: Dependencies, caller: Tenant, record: JobSummary) -> Retried:
    """Retry a dead letter for its tenant.

    Raises NotDead, JobNotFound, QueueFull, RelayUnavailable, and as `check_retry`.
    """
    await check_retry(dependencies, caller, record)
    owner = await _owner(dependencies, caller, record)
    return await dependencies.dead_letters.retry(record, owner)


async def check_retry(dependencies: Dependencies, caller: Tenant, record: JobSummary) -> None:
    """Check that a worker serves the request of a dead letter; raises FleetError, Refusal."""
    if record.dead_at is not None and record.retried_as is None:
        check_backend(caller, record.backend)
        request = applied(await dependencies.records.request(record.id), record.target)
        await Submission(dependencies.submission, caller, Preferences()).queue_for(
            request, record.alias
        )


@router.delete(
    "/dead/{id}",
    operation_id="purge_dead",
    response_model=DeadPurged,
    responses=documented(404, 409, 503),
)
async def purge(request: Request, id: JobId, dependencies: Injected, caller: Caller) -> Response:
    """Delete one dead letter for good: its record, its log, its request."""
    dead = await _dead(dependencies, caller, id)
    purged = await dependencies.dead_letters.purge(dead)
    note_subject(request.scope, f"job {dead.id} of {dead.tenant}")
    return json_response(purged)


@router.delete(
    "/dead",
    operation_id="purge_all_dead",
    response_model=DeadPurged,
    responses=documented(400, 422, 503),
)
async def purge_all(
    request: Request, dependencies: Injected, wanted: Which, before: Before = None
) -> Response:
    """Delete dead letters for good, up to 500 a call; repeat with `next` while there is one."""
    check_cursor(before)
    gone = await dependencies.dead_letters.purge_all(wanted, before=before)
    note_letters(request, gone.purged, wanted)
    return json_response(gone)


def note_letters(request: Request, count: int, wanted: DeadLetterFilter) -> None:
    """Say in the audit log what a call does to so many dead letters; to none: nothing."""
    chosen = {"queue": wanted.queue, "kind": wanted.kind, "tenant": wanted.tenant}
    told = [f"{name} {value}" for name, value in chosen.items() if value is not None]
    if count:
        note_subject(request.scope, ", ".join([f"dead letters: {count}", *told]))
    else:
        note_nothing(request.scope)


async def _dead(dependencies: Dependencies, caller: Tenant, job_id: str) -> JobRecord:
    record = await dependencies.records.get_for_tenant(checked_id(job_id), caller)
    if record.dead_at is None:
        raise JobNotFound(f"there is no dead letter {record.id}: that job is {record.status}")
    return record


async def _owner(dependencies: Dependencies, caller: Tenant, record: JobSummary) -> Tenant:
    """The tenant of a job, with its weight and bounds."""
    if record.tenant == caller.name:
        return caller
    table = await dependencies.api_keys.refresh(ApiKeyTable())
    owners = (entry.owner for entry in table.entries.values())
    return next((o for o in owners if o.name == record.tenant), Tenant(name=record.tenant))
