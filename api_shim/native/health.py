"""Health probes: whether this process is alive, and whether it can accept a job.

Neither depends on workers: a shim that took itself out of service while no worker is live would
refuse the jobs that start one.
"""

import asyncio
from typing import Annotated, Final

from fastapi import APIRouter, Query, Response

from api_shim.dependencies import Injected
from api_shim.http.problems import Refusal, documented
from api_shim.native.jobs import json_response
from contract.errors import NoWorker, RelayUnavailable
from contract.wire import WireModel

router = APIRouter(tags=["health"])
_READY_WITHIN_S: Final = 2.0
"""Shorter than probes usually wait, which learn nothing from a timeout of their own."""
_SILENT: Final = f"Redis has not answered for {_READY_WITHIN_S:g} s"


class Alive(WireModel):
    """The process is alive."""

    status: str = "alive"


class Ready(WireModel):
    """A job can be accepted."""

    status: str = "ready"
    checks: dict[str, str]
    """The result of each check."""
    workers: int
    """Live workers that are not draining."""


@router.get("/healthz", operation_id="is_alive", response_model=Alive, responses=documented())
async def healthz() -> Response:
    """Check that the process is alive, whatever is behind it; restart it if this fails."""
    return json_response(Alive())


@router.get("/livez", operation_id="is_live", response_model=Alive, responses=documented())
async def livez() -> Response:
    """Check the same as `/healthz`, under the name that Kubernetes uses."""
    return json_response(Alive())


@router.get(
    "/readyz", operation_id="is_ready", response_model=Ready, responses=documented(422, 503)
)
async def readyz(
    dependencies: Injected,
    workers: Annotated[
        int, Query(ge=0, description="Live workers that are expected; 0 checks Redis alone.")
    ] = 0,
) -> Response:
    """Check that Redis responds and enough workers are live; a 503 names the failed check.

    Without `workers` it needs none: jobs for a known backend are accepted without a worker.
    """
    try:
        async with asyncio.timeout(_READY_WITHIN_S):
            await dependencies.connection.ping()
            workers_now = await dependencies.roster.workers()
            live = [worker for worker in workers_now if not worker.draining]
    except (RelayUnavailable, TimeoutError) as error:
        why = error.message if isinstance(error, RelayUnavailable) else _SILENT
        raise Refusal(
            RelayUnavailable,
            why,
            checks={"redis": why, "workers": "unknown"},
            retry_after_s=2.0,
        ) from error
    if len(live) < workers:
        why = f"{len(live)} live, {workers} expected"
        raise Refusal(
            NoWorker,
            f"Redis responds, but there are too few workers: {why}.",
            checks={"redis": "ok", "workers": why},
            retry_after_s=2.0,
        )
    return json_response(Ready(checks={"redis": "ok", "workers": "ok"}, workers=len(live)))
