"""What the fleet is made of: backends, models, queues, workers, as live workers report them."""

from collections.abc import Iterable, Iterator
from typing import Annotated

from fastapi import APIRouter, Query, Response

from api_shim.dependencies import Injected
from api_shim.http.problems import Refusal, documented
from api_shim.native.jobs import answer
from api_shim.submission.roster_cache import Pool, listing, pools
from contract.errors import UnknownBackend
from contract.roster import (
    BackendReport,
    Capability,
    EndpointReport,
    ModelReport,
    QueueView,
    WorkerReport,
)
from contract.wire import WireModel

router = APIRouter(prefix="/api/v1", tags=["roster"])


class BackendView(WireModel):
    """A backend over all workers that serve it."""

    name: str
    type: str
    healthy: bool
    """Whether it works for at least one worker."""
    error: str | None
    """Why it, or one of its endpoints, does not work for one of them."""
    endpoints: tuple[str, ...]
    """Every address, without credentials."""
    endpoints_down: tuple[str, ...] = ()
    """Those that a worker could not use when it last looked or tried."""
    circuit_open_until: float | None = None
    """Unix seconds until which no worker gives it jobs; null while one does."""
    version: str | None
    capabilities: tuple[Capability, ...]
    models: tuple[str, ...]
    queues: tuple[str, ...]
    """Those that somebody takes jobs from now."""
    workers: tuple[str, ...]


class ModelView(ModelReport):
    """A model of a backend."""

    backend: str
    workers: int
    """How many of the backend's workers report it."""


class BackendList(WireModel):
    """Every backend that a live worker serves."""

    backends: tuple[BackendView, ...]


class ModelList(WireModel):
    """Every model of every backend."""

    models: tuple[ModelView, ...]


class QueueList(WireModel):
    """Every queue that is served or holds jobs."""

    queues: tuple[QueueView, ...]


class WorkerList(WireModel):
    """Every live worker."""

    workers: tuple[WorkerReport, ...]


def backend_view(pool: Pool) -> BackendView:
    """What a caller sees of a pool."""
    return BackendView(
        name=pool.name,
        type=pool.reports[0].type,
        healthy=pool.is_healthy,
        error=next((error for report in pool.reports for error in _errors(report)), None),
        endpoints=tuple(sorted({it.address for it in _endpoints(pool)})),
        endpoints_down=tuple(sorted({it.address for it in _endpoints(pool) if _is_down(it)})),
        circuit_open_until=_circuit_open_until(pool),
        version=next((report.version for report in pool.reports if report.version), None),
        capabilities=pool.capabilities,
        models=tuple(listing([pool])),
        queues=tuple(sorted(q for q in pool.queues if q.startswith(f"{pool.name}."))),
        workers=tuple(sorted(pool.workers)),
    )


def _endpoints(pool: Pool) -> list[EndpointReport]:
    """What workers say of each address; a worker of before there were several names one."""
    return [
        endpoint
        for report in pool.reports
        for endpoint in report.endpoints
        or (EndpointReport(address=report.endpoint, healthy=report.healthy),)
    ]


def _is_down(endpoint: EndpointReport) -> bool:
    return not endpoint.healthy or endpoint.circuit_open_until is not None


def _errors(report: BackendReport) -> Iterator[str]:
    told = (report.error, *(endpoint.error for endpoint in report.endpoints))
    return (error for error in told if error)


def _circuit_open_until(pool: Pool) -> float | None:
    times = [endpoint.circuit_open_until for endpoint in _endpoints(pool)]
    return (
        None if None in times else min((time for time in times if time is not None), default=None)
    )


def model_views(found: Iterable[Pool]) -> list[ModelView]:
    """The models of these pools, those that chat first; warm where any worker has it warm."""
    return [
        ModelView(
            **{**dict(reports[0]), "warm": _any_warm(reports)},
            backend=pool.name,
            workers=len(reports),
        )
        for name, owners in listing(found).items()
        for pool in owners
        for reports in [pool.models[name]]
    ]


def _any_warm(reports: Iterable[ModelReport]) -> bool | None:
    told = [report.warm for report in reports if report.warm is not None]
    return any(told) if told else None


@router.get(
    "/backends",
    operation_id="list_backends",
    response_model=BackendList,
    responses=documented(503),
)
async def backends(dependencies: Injected) -> Response:
    """List backends: their health, what they can do, their models and workers."""
    found = pools(await dependencies.roster.workers()).values()
    return answer(BackendList(backends=tuple(backend_view(pool) for pool in found)))


@router.get(
    "/models",
    operation_id="list_models",
    response_model=ModelList,
    responses=documented(404, 503),
)
async def models(
    dependencies: Injected,
    backend: Annotated[str | None, Query(description="Only those of this backend.")] = None,
) -> Response:
    """List models, those that chat first: whose they are, what they can do, what is in memory."""
    found = pools(await dependencies.roster.workers())
    if backend is not None:
        if backend not in found:
            names = ", ".join(found) or "none"
            raise Refusal(UnknownBackend, f"There is no backend {backend[:40]}; live: {names}.")
        found = {backend: found[backend]}
    return answer(ModelList(models=tuple(model_views(found.values()))))


@router.get(
    "/queues", operation_id="list_queues", response_model=QueueList, responses=documented(503)
)
async def queues(dependencies: Injected) -> Response:
    """List queues: how many wait and run, how long the oldest has waited, who serves them."""
    views = await dependencies.queue.standing.views(await dependencies.roster.workers())
    return answer(QueueList(queues=tuple(views)))


@router.get(
    "/workers", operation_id="list_workers", response_model=WorkerList, responses=documented(503)
)
async def workers(dependencies: Injected) -> Response:
    """List live workers, as they report themselves."""
    return answer(WorkerList(workers=tuple(await dependencies.roster.workers())))
