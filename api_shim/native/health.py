"""Whether this process lives, and whether the fleet behind it can take a job."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from api_shim.dependencies import Injected
from api_shim.http.problems import Refusal, documented
from api_shim.native.jobs import answer
from contract.errors import NoWorker, RelayUnavailable
from contract.wire import WireModel

router = APIRouter(tags=["health"])


class Alive(WireModel):
    """The process answers."""

    status: str = "alive"


class Ready(WireModel):
    """The fleet can take a job."""

    status: str = "ready"
    checks: dict[str, str]
    """What was looked at."""
    workers: int
    """How many are live and not draining."""


@router.get("/healthz", operation_id="is_alive", response_model=Alive, responses=documented())
async def healthz() -> Response:
    """Answer while the process lives, whatever is behind it; restart it if this fails."""
    return answer(Alive())


@router.get(
    "/readyz", operation_id="is_ready", response_model=Ready, responses=documented(422, 503)
)
async def readyz(
    dependencies: Injected,
    workers: Annotated[
        int, Query(ge=0, description="Live workers that are expected; 0 asks for Redis alone.")
    ] = 1,
) -> Response:
    """Answer 200 when Redis answers and enough workers are live; else say which check fails."""
    try:
        await dependencies.connection.ping()
        live = [worker for worker in await dependencies.roster.workers() if not worker.draining]
    except RelayUnavailable as error:
        raise Refusal(
            RelayUnavailable,
            error.message,
            checks={"redis": error.message, "workers": "unknown"},
            retry_after_s=2.0,
        ) from error
    if len(live) < workers:
        why = f"{len(live)} live, {workers} expected"
        raise Refusal(
            NoWorker,
            f"Redis answers, but there are too few workers: {why}.",
            checks={"redis": "ok", "workers": why},
            retry_after_s=2.0,
        )
    return answer(Ready(checks={"redis": "ok", "workers": "ok"}, workers=len(live)))
