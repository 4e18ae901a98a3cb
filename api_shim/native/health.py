"""Health probes: whether this process is alive, whether it can accept a job, how full limits are.

None depends on workers: a shim that took itself out of service while no worker is live would refuse
the jobs that start one.
"""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from api_shim.dependencies import Dependencies, Injected
from api_shim.http.authentication import Admin
from api_shim.http.problems import Refusal, documented
from api_shim.http.query_fields import only_known_fields
from api_shim.native.jobs import json_response
from api_shim.overview.limit_reader import LimitReader
from contract.errors import NoWorker, RelayFull, RelayUnavailable
from contract.roster import FleetLimits
from contract.wire import WireModel
from relay.connection import soon
from relay.files import FileBounds
from relay.scripts.queues import may_write

router = APIRouter(tags=["health"])


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
    *,
    workers: Annotated[
        int, Query(ge=0, description="Live workers that are expected; 0 checks Redis alone.")
    ] = 0,
    full: Annotated[
        bool, Query(description="Also ready while Redis is full and takes no new jobs.")
    ] = False,
) -> Response:
    """Check that Redis takes jobs and enough workers are live; a 503 names the failed check.

    Without `workers` it needs none: jobs for a known backend are accepted without a worker. With
    `full` Redis need not take jobs: whatever sends requests to shims should ask so, or nobody could
    cancel, delete or read while Redis is full.
    """
    try:
        async with soon():
            in_redis = await _checked(dependencies, full=full)
            workers_now = await dependencies.roster.workers()
            live = [worker for worker in workers_now if not worker.draining]
    except RelayUnavailable as error:
        raise Refusal(
            RelayUnavailable,
            error.message,
            checks={"redis": error.message, "workers": "unknown"},
            retry_after_s=error.retry_after_s or 2.0,
        ) from error
    if len(live) < workers:
        why = f"{len(live)} live, {workers} expected"
        raise Refusal(
            NoWorker,
            f"Redis responds, but there are too few workers: {why}.",
            checks={"redis": "ok", "workers": why},
            retry_after_s=2.0,
        )
    return json_response(Ready(checks={"redis": in_redis, "workers": "ok"}, workers=len(live)))


async def _checked(dependencies: Dependencies, *, full: bool) -> str:
    """Whether Redis takes jobs; with `full` why it does not. Raises RelayUnavailable."""
    try:
        await dependencies.connection.call(may_write())
        dependencies.redis_disk.demand_room()
    except RelayFull as error:
        if not full:
            raise
        return error.message
    return "ok"


@router.get(
    "/api/v1/limits",
    operation_id="read_limits",
    responses=documented(401, 403, 422, 503),
    dependencies=[Depends(only_known_fields)],
)
async def limits(dependencies: Injected, _: Admin) -> FleetLimits:
    """Read how full the limits are at which the fleet refuses jobs and files: an admin's key."""
    settings = dependencies.settings
    bounds = FileBounds(
        settings.tenant_files_bytes, settings.files_bytes, tenant_files=settings.tenant_files
    )
    reader = LimitReader(dependencies.connection, dependencies.files, bounds)
    async with soon():
        found = await reader.read(await dependencies.roster.recent())
    disks = {
        "disk of files": await dependencies.storage.disk(),
        "disk of Redis": dependencies.redis_disk.disk(),
    }
    reserve_bytes = settings.disk_reserve_bytes
    of_disks = [disk.used(what, reserve_bytes) for what, disk in disks.items() if disk is not None]
    return FleetLimits(limits=(*of_disks, *found))
