"""Routes for jobs after the enqueue: get, wait, list, cancel."""

import asyncio
import math
from contextlib import aclosing, suppress
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request, Response

from api_shim.dependencies import Dependencies, Injected
from api_shim.following.long_answer import LOGPROBS, LongAnswer
from api_shim.following.shutdown import CallEnding
from api_shim.http.authentication import Caller
from api_shim.http.problems import Refusal, documented
from contract.errors import JobDamaged, JobNotFound
from contract.events import LAST_WORDS
from contract.jobs import AnyRequest, JobPage, JobRecord, JobView, ScheduledPage
from contract.redis_keys import JOB_ID, JOB_ID_BEGINNING
from contract.requests import Kind
from contract.result import Fold, Result, Status
from contract.wire import WireModel
from relay.admission.retention import demand_kept
from relay.lists.scheduled_jobs import ScheduledJobs
from relay.scheduling.later import shown

JobId = Annotated[
    str,
    Path(
        description="32 hexadecimal digits, as the enqueue returned; or the first four or more, if "
        "they are unique among the tenant's newest 100,000 jobs."
    ),
]

_LONGEST_WAIT_S: Final = 300
_LONGEST_PAGE: Final = 200

router = APIRouter(prefix="/api/v1/jobs", tags=["jobs"])


def checked_id(job_id: str) -> str:
    """A valid job id or prefix; raises JobNotFound, so that nothing else becomes a Redis key."""
    if not JOB_ID_BEGINNING.match(job_id):
        raise JobNotFound(
            f"there is no job {job_id[:64]}: an id has 32 hexadecimal digits, "
            "of which the first four or more are enough"
        )
    return job_id


def json_response(noun: WireModel, job_id: str | None = None) -> Response:
    """A model as JSON, with its nulls."""
    headers = {"Cache-Control": "no-store"}
    if job_id is not None:
        headers["X-Fleet-Job"] = job_id
    return Response(noun.model_dump_json(), 200, headers, media_type="application/json")


@router.get(
    "", operation_id="list_jobs", response_model=JobPage, responses=documented(400, 422, 503)
)
async def page(
    dependencies: Injected,
    caller: Caller,
    *,
    status: Status | None = None,
    kind: Kind | None = None,
    queue: Annotated[str | None, Query(examples=["ollama.chat"])] = None,
    backend: Annotated[str | None, Query(examples=["ollama"])] = None,
    tenant: Annotated[str | None, Query(description="For admins: of this tenant.")] = None,
    search: Annotated[
        str | None,
        Query(
            max_length=200,
            description="Text that the id begins with, or that the name of the model, queue, "
            "tenant or worker contains.",
        ),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=_LONGEST_PAGE)] = 50,
    before: Annotated[str | None, Query(description="`next` of the previous page.")] = None,
) -> Response:
    """List the tenant's jobs, newest first; an admin's key lists all."""
    check_cursor(before)
    found = await dependencies.records.page(
        visible_to=caller,
        status=status,
        kind=kind,
        queue=queue,
        backend=backend,
        tenant=tenant,
        search=search,
        limit=limit,
        before=before,
    )
    return json_response(found)


@router.get(
    "/scheduled",
    operation_id="list_scheduled_jobs",
    response_model=ScheduledPage,
    responses=documented(422, 503),
)
async def scheduled(
    dependencies: Injected,
    caller: Caller,
    limit: Annotated[int, Query(ge=1, le=_LONGEST_PAGE)] = 50,
) -> Response:
    """List the tenant's jobs that may not start yet, the next first; an admin's key lists all."""
    jobs = ScheduledJobs(dependencies.connection, dependencies.records)
    return json_response(await jobs.page(visible_to=caller, limit=limit))


def check_cursor(before: str | None) -> None:
    """Check that a page can begin there; raises Refusal."""
    if before is not None and not _is_cursor(before):
        raise Refusal(
            "invalid_cursor",
            f"before={before[:40]!r} is not a cursor: use `next` of a page unchanged.",
            status=400,
        )


def _is_cursor(text: str) -> bool:
    try:
        return 0 <= float(text) < math.inf
    except ValueError:
        return False


@router.get(
    "/{id}",
    operation_id="get_job",
    response_model=JobView,
    responses=documented(404, 409, 410, 422, 503),
)
async def get(
    id: JobId,
    request: Request,
    dependencies: Injected,
    caller: Caller,
    *,
    wait_s: Annotated[
        float,
        Query(ge=0, le=_LONGEST_WAIT_S, description="Seconds to wait for the job's end."),
    ] = 0,
    result: Annotated[bool, Query(description="Whether to include the result so far.")] = True,
) -> Response:
    """Get a job: its record, position and result so far; `wait_s` waits until it has ended."""
    record = await dependencies.records.get_for_tenant(checked_id(id), caller)
    if wait_s and record.status not in LAST_WORDS:
        async with dependencies.followers.follow(record) as follower:
            waiting = _until_the_end(dependencies, record.id, wait_s)
            if await dependencies.open_calls.run(waiting, request.receive) is CallEnding.FINISHED:
                follower.returns()
        record = await dependencies.records.get(record.id)
    if result:
        connection = dependencies.connection
        demand_kept(record, connection.settings, connection.now())
    long = LongAnswer(dependencies.log, record.id, ("content", "thinking", LOGPROBS))
    view = await _view(dependencies, record, long if result else None)
    return long.whole(json_response(view, record.id))


class JobRequest(WireModel):
    """What a job was asked to do."""

    kind: Kind
    request: dict[str, Any]
    """The body to send to `POST /api/v1/jobs/<kind>` for the same again; fields that have their
    default are left out."""


@router.get(
    "/{id}/request",
    operation_id="get_job_request",
    response_model=JobRequest,
    responses=documented(404, 409, 410, 503),
)
async def get_request(id: JobId, dependencies: Injected, caller: Caller) -> Response:
    """Get the request of a job, to repeat it; large ones are as large as they were sent."""
    record = await dependencies.records.get_for_tenant(checked_id(id), caller)
    request = await dependencies.records.request(record.id)
    return json_response(JobRequest(kind=request.kind, request=_chosen(request)), record.id)


def _chosen(request: AnyRequest) -> dict[str, Any]:
    """The fields of a request that differ from their default.

    Fields inside of them are all kept: the `type` of a part of a message has a default and is
    needed to read it.
    """
    defaults = {
        name
        for name, field in type(request).model_fields.items()
        if getattr(request, name) == field.get_default(call_default_factory=True)
    }
    return request.model_dump(
        mode="json", by_alias=True, exclude_none=True, exclude={*defaults, "kind", "route"}
    )


async def _until_the_end(dependencies: Dependencies, job_id: str, wait_s: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(wait_s), aclosing(dependencies.log.follow(job_id)) as pages:
            async for _ in pages:
                pass


async def _view(dependencies: Dependencies, record: JobRecord, long: LongAnswer | None) -> JobView:
    """The job, with the result that `long` sends, if it is given."""
    place = await dependencies.positions.place(record)
    record = shown(record, dependencies.connection.now())
    if long is None:
        result = Result(status=record.status, attempt=record.attempt)
    else:
        answer = Fold()
        async with aclosing(long.of(dependencies.log.read(record.id))) as pages:
            async for frames in pages:
                for frame in frames:
                    answer.add_frame(frame)
        result = answer.result
    return JobView(
        **dict(record),
        position=place.position,
        eta_s=place.eta_s,
        reason=place.reason,
        result=result,
    )


@router.delete(
    "/{id}",
    operation_id="cancel_job",
    response_model=JobRecord,
    responses={
        **documented(404, 409, 422, 503),
        204: {"description": "Its record was damaged in Redis: the job was deleted."},
    },
)
async def cancel(
    id: JobId,
    dependencies: Injected,
    caller: Caller,
    reason: Annotated[str, Query(max_length=200, description="Shown to its followers.")] = "",
) -> Response:
    """Cancel a job, whatever its status; idempotent, and effective at once.

    A job whose record is damaged in Redis is deleted, if the whole id is given.
    """
    try:
        record = await dependencies.records.get_for_tenant(checked_id(id), caller)
    except JobDamaged:
        if not JOB_ID.match(id):
            raise
        await dependencies.queue.remove_unread(id, caller.name)
        return Response(status_code=204)
    cancelled = await dependencies.queue.cancel(record.id, by="caller", reason=reason)
    return json_response(cancelled, record.id)
