"""Backends that are added and removed at run time; `fleet up` starts and ends their workers.

Allowed for admins' keys, or, while there are no keys, for clients on this machine, because a
backend's process runs as the user who runs the fleet. A DSN may hold a key: it passes through this
process to `fleet up` and is never written anywhere.
"""

import asyncio
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Depends, Path, Response
from pydantic import Field, SecretStr
from starlette.requests import HTTPConnection, Request

from api_shim.access.audit_trail import note_subject
from api_shim.control import (
    AddBackend,
    BackendName,
    ControlLost,
    ControlRequest,
    ControlResponse,
    RemoveBackend,
    send_request,
)
from api_shim.dependencies import Dependencies, Injected
from api_shim.http.authentication import Admin, is_local
from api_shim.http.json_body import JsonRoute
from api_shim.http.problems import Refusal, documented
from api_shim.native.jobs import json_response
from api_shim.submission.roster_cache import pools
from api_shim.submission.roster_views import BackendView, backend_view
from contract.errors import InvalidRequest, UnknownBackend
from contract.redis_keys import backend_of
from contract.wire import WireModel

_CONTROL_WITHIN_S: Final = 55.0
"""Longer than `fleet up` waits for a worker to drain."""
_SEEN_WITHIN_S: Final = 12.0
_LOOK_S: Final = 0.1
_NOT_CHECKED: Final = "not checked yet"
_INSTEAD: Final = (
    "This shim was not started by `fleet up`, so it cannot start or end workers. Start one with "
    "LLM_<NAME>=<type>://... and FLEET_WORKER_BACKEND=<name> in its environment (`python -m "
    "workers`), or stop it: the roster updates itself."
)


class NewBackend(WireModel):
    """A backend to start workers for."""

    name: BackendName
    dsn: Annotated[SecretStr, Field(min_length=3, max_length=8192)]
    """As in `ollama://10.0.0.5:11434` or `openai://<key>@api.openai.com/v1`; kept secret."""


class BackendStarts(WireModel):
    """A backend whose worker was started and has not reported yet."""

    name: str
    status: str = "starting"
    detail: str


class BackendRemoved(WireModel):
    """A backend that no worker serves any more."""

    name: str
    workers: int
    """How many workers were ended."""
    forgotten: bool = False
    """Whether it was known from earlier workers: new jobs do not wait for it any more."""
    waiting: int
    """Jobs in its queues; they wait until a backend of that name is served again."""


async def allowed(connection: HTTPConnection, dependencies: Injected, _: Admin) -> None:
    """Allow admins; without any key, clients on this machine. Raises Refusal."""
    if not dependencies.authenticator.has_keys and not is_local(connection):
        raise Refusal(
            "not_local",
            "While no API key is configured, backends are added and removed from the machine that "
            "the fleet runs on: use its shim at 127.0.0.1 there, without a proxy between.",
            status=403,
        )


router = APIRouter(
    prefix="/api/v1", tags=["roster"], route_class=JsonRoute, dependencies=[Depends(allowed)]
)
_EXAMPLE: Final[Any] = {
    "example": {"summary": "Ollama", "value": {"name": "box", "dsn": "ollama://10.0.0.5:11434"}}
}


@router.post(
    "/backends",
    operation_id="add_backend",
    status_code=201,
    response_model=BackendView,
    responses={
        201: {"description": "It is on the roster; `healthy` and `error` show its state."},
        202: {"model": BackendStarts, "description": "Its worker has not reported yet."},
        **documented(400, 403, 409, 413, 415, 422, 503),
    },
)
async def add(
    request: Request,
    new: Annotated[NewBackend, Body(openapi_examples=_EXAMPLE)],
    dependencies: Injected,
) -> Response:
    """Start workers for a backend at run time; `fleet up` does not remember it when it exits."""
    note_subject(request.scope, new.name)
    if await _is_live(dependencies, new.name):
        raise _taken(f"A live worker already serves a backend {new.name}")
    response = await _control(dependencies, AddBackend(name=new.name, dsn=new.dsn))
    if response.error == "invalid":
        raise Refusal(InvalidRequest, response.message)
    if response.error is not None:
        raise _taken(response.message)
    view = await _seen(dependencies, new.name)
    if view is None:
        detail = (
            "GET /api/v1/backends shows it when it has reported; `fleet up` prints why it does not."
        )
        starts = BackendStarts(name=new.name, detail=detail)
        return Response(starts.model_dump_json(), 202, media_type="application/json")
    return Response(view.model_dump_json(), 201, media_type="application/json")


@router.delete(
    "/backends/{name}",
    operation_id="remove_backend",
    response_model=BackendRemoved,
    responses=documented(403, 404, 409, 422, 503),
)
async def remove(
    name: Annotated[BackendName, Path(description="As it was added, or given to `fleet up`.")],
    dependencies: Injected,
) -> Response:
    """End a backend's workers, which finish or return their jobs, and forget it; queued jobs wait.

    A backend that has no live worker is only forgotten.
    """
    live = await _is_live(dependencies, name)
    ended = 0
    if live or dependencies.settings.control is not None:
        response = await _control(dependencies, RemoveBackend(name=name))
        ended = response.processes
        if response.error is not None and live:
            raise Refusal(UnknownBackend, response.message)
    forgotten = await dependencies.roster.forget(name)
    if not (ended or forgotten):
        raise Refusal(UnknownBackend, f"There is no backend {name}, live or known.")
    views = await dependencies.queue.positions.views(await dependencies.roster.workers())
    waiting = sum(view.depth for view in views if backend_of(view.name) == name)
    gone = BackendRemoved(name=name, workers=ended, forgotten=forgotten, waiting=waiting)
    return json_response(gone)


async def _is_live(dependencies: Dependencies, name: str) -> bool:
    workers = await dependencies.roster.workers()
    return any(report.name == name for worker in workers for report in worker.backends)


def _taken(why: str) -> Refusal:
    return Refusal("name_taken", f"{why}: choose another name, or remove that one.", status=409)


async def _control(dependencies: Dependencies, order: ControlRequest) -> ControlResponse:
    control = dependencies.settings.control
    if control is None:
        raise Refusal("not_supervised", _INSTEAD, status=409)
    try:
        return await send_request(control, order, _CONTROL_WITHIN_S)
    except ControlLost as error:
        raise Refusal(
            "control_lost", f"{error}: it may be shutting down.", status=503, retry_after_s=2.0
        ) from None


async def _seen(dependencies: Dependencies, name: str) -> BackendView | None:
    """The backend once a worker has probed it; None if that takes too long."""
    try:
        async with asyncio.timeout(_SEEN_WITHIN_S):
            while True:
                pool = pools(await dependencies.roster.workers()).get(name)
                if pool is not None and all(r.error != _NOT_CHECKED for r in pool.reports):
                    return backend_view(pool)
                await asyncio.sleep(_LOOK_S)
    except TimeoutError:
        return None
