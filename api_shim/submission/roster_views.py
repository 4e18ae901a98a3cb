"""Backends and models as clients see them, rendered from the reports of workers.

Apart from the routes, because `fleet up` renders them too, and FastAPI takes a second to import.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from api_shim.submission.roster_cache import Pool, listing
from contract.roster import BackendReport, Capability, EndpointReport, ModelReport
from contract.wire import WireModel

NO_WORKER: Final = "no worker is live"
"""The error of a backend that is only known: its jobs wait for a worker to start."""


class BackendView(WireModel):
    """A backend with all workers that serve it; with none, what is known of it."""

    name: str
    type: str
    healthy: bool
    """Whether it is healthy for at least one worker."""
    error: str | None
    """An error of it, or of one of its endpoints, that a worker reports."""
    endpoints: tuple[str, ...]
    """Every address, without credentials; for others than admins its label, as in `box/2`."""
    endpoints_down: tuple[str, ...] = ()
    """Addresses that are unhealthy or have an open circuit at a worker."""
    circuit_open_until: float | None = None
    """Unix seconds until which no worker sends it jobs; null while one does."""
    version: str | None
    capabilities: tuple[Capability, ...]
    models: tuple[str, ...]
    queues: tuple[str, ...]
    """Its queues that a worker consumes now."""
    workers: tuple[str, ...]
    known_queues: tuple[str, ...] = ()
    """Its queues that no worker consumes now, but that take jobs, which wait for one to start."""
    last_seen_at: float | None = None
    """Unix seconds at which a worker last reported such a queue; null: never, it is configured."""


class ModelView(ModelReport):
    """A model of a backend."""

    backend: str
    workers: int
    """How many of the backend's workers report it; 0: it is known, and no worker is live."""


def backend_view(pool: Pool) -> BackendView:
    """A pool as clients see it."""
    return BackendView(
        name=pool.name,
        type=pool.reports[0].type,
        healthy=pool.is_healthy,
        error=_error(pool),
        endpoints=tuple(sorted({it.address for it in _endpoints(pool)})),
        endpoints_down=tuple(
            sorted({it.address for it in _endpoints(pool) if pool.workers and _is_down(it)})
        ),
        circuit_open_until=_circuit_open_until(pool),
        version=next((report.version for report in pool.reports if report.version), None),
        capabilities=pool.capabilities,
        models=tuple(listing([pool])),
        queues=tuple(sorted(q for q in pool.queues if q.startswith(f"{pool.name}."))),
        workers=tuple(sorted(pool.workers)),
        known_queues=tuple(sorted(pool.known_queues)),
        last_seen_at=pool.last_seen_at,
    )


def _error(pool: Pool) -> str | None:
    if not pool.workers:
        return NO_WORKER
    return next((error for report in pool.reports for error in _errors(report)), None)


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
    errors = (report.error, *(endpoint.error for endpoint in report.endpoints))
    return (error for error in errors if error)


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
            workers=len(reports) if pool.workers else 0,
        )
        for name, owners in listing(found).items()
        for pool in owners
        for reports in [pool.models[name]]
    ]


def _any_warm(reports: Iterable[ModelReport]) -> bool | None:
    reported = [report.warm for report in reports if report.warm is not None]
    return any(reported) if reported else None
