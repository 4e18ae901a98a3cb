"""Queues over HTTP: what waits in each, and when its jobs run.

Everybody may read; admins pause and resume queues and set their run windows.
"""

import logging
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Path, Response
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from api_shim.dependencies import Dependencies, Injected
from api_shim.http.authentication import Admin, Caller
from api_shim.http.json_body import JsonRoute
from api_shim.http.problems import Refusal, documented
from api_shim.native.jobs import json_response
from contract.errors import InvalidRequest, UnknownQueue
from contract.model_names import close
from contract.redis_keys import QUEUE_NAME, backend_of
from contract.requests import Moment
from contract.roster import QueuePause, QueueTimes, QueueView
from contract.tenants import Tenant
from contract.wire import ClientModel, WireModel
from relay.scaling.demand import DemandReader
from relay.scheduling.pauses import QueuePauses
from relay.scheduling.run_windows import MOST_WINDOWS, parsed

_log = logging.getLogger(__name__)

QueueName = Annotated[
    str,
    Path(pattern=QUEUE_NAME, examples=["box.chat"]),
]
_ONE_LINE: Final = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]*$"
"""Nothing that moves a terminal's cursor or turns the direction of text."""
_LONGEST_S: Final = 366 * 86400
_ROUTE: Final[Any] = {"responses": documented(400, 403, 404, 413, 415, 422, 503)}

router = APIRouter(prefix="/api/v1/queues", tags=["roster"], route_class=JsonRoute)


class QueueList(WireModel):
    """Every queue that is consumed, holds jobs, or has a schedule."""

    queues: tuple[QueueView, ...]


class PauseQueue(ClientModel):
    """How long to pause a queue, and why."""

    until: Moment | None = None
    """When it runs again; without it, once it is resumed."""
    reason: Annotated[str, Field(max_length=200, pattern=_ONE_LINE)] = ""
    """For those who wait: one line."""


def _is_window(text: str) -> str:
    try:
        parsed(text)
    except ValueError as error:
        raise PydanticCustomError("run_window", "{why}", {"why": str(error)}) from None
    return " ".join(text.split())


class RunWindows(ClientModel):
    """The run windows of a queue; none: it runs at any time."""

    windows: Annotated[
        tuple[Annotated[str, Field(max_length=120), AfterValidator(_is_window)], ...],
        Field(max_length=MOST_WINDOWS, examples=[["22:00-06:00 Europe/Berlin"]]),
    ]
    """Each as in `mon-fri 22:00-06:00 Europe/Berlin`; the days are those on which it opens."""


@router.get("", operation_id="list_queues", response_model=QueueList, responses=documented(503))
async def queues(dependencies: Injected, caller: Caller) -> Response:
    """List queues: depth, running jobs, age of the oldest job, workers, pauses, run windows."""
    views = await dependencies.queue.positions.views(await dependencies.roster.workers())
    its = [view for view in views if caller.may_use_backend(backend_of(view.name))]
    full = await dependencies.queue.positions.with_schedules(its)
    return json_response(QueueList(queues=tuple(full)))


@router.post("/{queue}/pause", operation_id="pause_queue", response_model=QueueTimes, **_ROUTE)
async def pause(
    queue: QueueName,
    dependencies: Injected,
    admin: Admin,
    body: Annotated[PauseQueue, Body()] = PauseQueue(),  # noqa: B008 - it is immutable
) -> Response:
    """Start no more jobs of a queue; those that run go on, others wait. Pausing again replaces it.

    Waiting jobs can be cancelled, and their deadlines go on.
    """
    await _known(dependencies, queue)
    now = dependencies.connection.now()
    if body.until is not None and not now < body.until <= now + _LONGEST_S:
        raise Refusal(InvalidRequest, "until: a time in the future, at most a year ahead.")
    pauses = QueuePauses(dependencies.connection)
    paused = await pauses.pause(queue, until=body.until, reason=body.reason)
    _audit(admin, queue, "paused", until=body.until, reason=body.reason)
    return await _times(dependencies, queue, paused)


@router.post("/{queue}/resume", operation_id="resume_queue", response_model=QueueTimes, **_ROUTE)
async def resume(queue: QueueName, dependencies: Injected, admin: Admin) -> Response:
    """Start jobs of a paused queue again; outside its run windows it stays paused."""
    await _known(dependencies, queue)
    paused = await QueuePauses(dependencies.connection).resume(queue)
    _audit(admin, queue, "resumed")
    return await _times(dependencies, queue, paused)


@router.put("/{queue}/windows", operation_id="set_windows", response_model=QueueTimes, **_ROUTE)
async def set_windows(
    queue: QueueName, body: RunWindows, dependencies: Injected, admin: Admin
) -> Response:
    """Replace the run windows of a queue: outside of them it is paused."""
    await _known(dependencies, queue)
    pauses = QueuePauses(dependencies.connection)
    paused = await pauses.set_windows(queue, body.windows)
    _audit(admin, queue, "run windows set", windows=list(body.windows))
    return await _times(dependencies, queue, paused)


async def _known(dependencies: Dependencies, queue: str) -> None:
    """Raise Refusal for a queue that no worker serves, served lately, or would serve."""
    reader = DemandReader(dependencies.connection)
    names = await reader.all_queues(await dependencies.roster.recent())
    if queue not in names:
        raise Refusal(
            UnknownQueue,
            f"There is no queue {queue}; GET /api/v1/queues lists them.",
            matches=close(queue, names),
        )


async def _times(dependencies: Dependencies, queue: str, paused: QueuePause | None) -> Response:
    if paused is None:
        await dependencies.queue.wake_after_pause(queue)
    windows = await QueuePauses(dependencies.connection).windows([queue])
    return json_response(QueueTimes(name=queue, paused=paused, windows=windows.get(queue, ())))


def _audit(admin: Tenant, queue: str, action: str, **details: object) -> None:
    facts = {"queue": queue, "action": action, "by": admin.name, **details}
    _log.info("queue %s: %s by %s", queue, action, admin.name, extra={"facts": facts})
