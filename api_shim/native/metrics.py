"""The metrics that Prometheus scrapes: those of this process, and those of the whole fleet."""

from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Query, Response

from api_shim.dependencies import Injected
from api_shim.http.authentication import Admin
from api_shim.http.problems import documented
from api_shim.http.query_fields import only_known_fields
from contract.wire import WireModel
from telemetry.process_metrics import CONTENT_TYPE


class Target(WireModel):
    """An address for Prometheus's `http_sd_configs`."""

    targets: tuple[str, ...]
    """`host:port`."""
    labels: dict[str, str]


router = APIRouter(tags=["metrics"], dependencies=[Depends(only_known_fields)])

_TEXT: Final[dict[str, Any]] = {
    "description": "Prometheus's text format.",
    "content": {"text/plain": {"schema": {"type": "string"}}},
}


@router.get(
    "/metrics",
    operation_id="read_metrics",
    response_class=Response,
    responses={200: _TEXT, **documented(401, 403, 422, 503)},
)
async def metrics(
    dependencies: Injected,
    _: Admin,
    only: Annotated[
        Literal["fleet", "process"] | None,
        Query(description="Only the fleet's (`fleet`), or only this process's (`process`)."),
    ] = None,
) -> Response:
    """Read the metrics: an admin's key or FLEET_METRICS_KEY; without keys, from this machine.

    The fleet's metrics are the same at every shim: with several, add up none of them.
    """
    fleet = [] if only == "process" else await dependencies.metrics.fleet.read()
    text = dependencies.metrics.process.text(fleet, own=only != "fleet")
    return Response(text, headers={"Content-Type": CONTENT_TYPE})


@router.get(
    "/metrics/targets",
    operation_id="list_metrics_targets",
    responses=documented(401, 403, 422, 503),
)
async def targets(dependencies: Injected, _: Admin) -> list[Target]:
    """List the workers that serve metrics, for Prometheus's `http_sd_configs`."""
    return [
        Target(
            targets=(urlsplit(worker.metrics_url).netloc,),
            labels={"worker": worker.name, "backend": worker.backends[0].name},
        )
        for worker in await dependencies.roster.workers()
        if worker.metrics_url is not None
    ]
