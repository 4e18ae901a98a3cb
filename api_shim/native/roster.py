"""The roster over HTTP: backends, models, workers, as workers report or reported them."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from api_shim.dependencies import Dependencies, Injected
from api_shim.http.authentication import Caller
from api_shim.http.problems import Refusal, documented
from api_shim.native.jobs import json_response
from api_shim.submission.caller_rights import without_hosts
from api_shim.submission.roster_cache import pools
from api_shim.submission.roster_views import BackendView, ModelView, backend_view, model_views
from contract.errors import UnknownBackend
from contract.roster import WorkerReport
from contract.tenants import Tenant
from contract.wire import WireModel
from relay.roster import Roster

router = APIRouter(prefix="/api/v1", tags=["roster"])


class BackendList(WireModel):
    """Every backend that a live worker serves, or for which jobs may wait until one does."""

    backends: tuple[BackendView, ...]


class ModelList(WireModel):
    """Every model of every backend."""

    models: tuple[ModelView, ...]


class WorkerList(WireModel):
    """Every live worker."""

    workers: tuple[WorkerReport, ...]


@router.get(
    "/backends",
    operation_id="list_backends",
    response_model=BackendList,
    responses=documented(503),
)
async def backends(dependencies: Injected, caller: Caller) -> Response:
    """List backends: health, capabilities, models and workers, of which there may be none.

    Others than admins get labels in place of addresses.
    """
    found = pools(*await _seen(dependencies, caller)).values()
    return json_response(BackendList(backends=tuple(backend_view(pool) for pool in found)))


@router.get(
    "/models",
    operation_id="list_models",
    response_model=ModelList,
    responses=documented(404, 503),
)
async def models(
    dependencies: Injected,
    caller: Caller,
    backend: Annotated[str | None, Query(description="Only those of this backend.")] = None,
) -> Response:
    """List models, chat models first: backend, capabilities, whether it is in memory."""
    found = await dependencies.roster.pools_of(caller)
    if backend is not None:
        if backend not in found:
            names = ", ".join(found) or "none"
            raise Refusal(UnknownBackend, f"There is no backend {backend[:40]}; live: {names}.")
        found = {backend: found[backend]}
    return json_response(ModelList(models=tuple(model_views(found.values()))))


@router.get(
    "/workers", operation_id="list_workers", response_model=WorkerList, responses=documented(503)
)
async def workers(dependencies: Injected, caller: Caller) -> Response:
    """List live workers with their reports; hosts, processes and addresses are for admins."""
    found = await _seen(dependencies, caller)
    return json_response(WorkerList(workers=tuple(found.workers)))


async def _seen(dependencies: Dependencies, caller: Tenant) -> Roster:
    """What a caller may see of the roster now; raises RelayUnavailable."""
    await dependencies.roster.read()
    roster, _ = dependencies.roster.seen_by(caller)
    return without_hosts(roster, caller)
