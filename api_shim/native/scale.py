"""The demand in workers, for whatever starts and ends them: KEDA, a script, another autoscaler."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import Field

from api_shim.dependencies import Injected
from api_shim.http.authentication import Caller
from api_shim.http.headers import BACKEND_NAME
from api_shim.http.problems import Refusal, documented
from api_shim.native.jobs import json_response
from contract.errors import InvalidRequest
from contract.redis_keys import QUEUE_NAME, backend_of
from contract.roster import QueueDemand
from contract.wire import WireModel
from relay.connection import soon
from relay.scaling.demand import DemandReader

router = APIRouter(prefix="/api/v1", tags=["roster"])


class Scale(WireModel):
    """The workers that are wanted now."""

    workers: Annotated[int, Field(ge=0)]
    """Scale to this number: ceil((waiting + running) / slots), never below `busy`, never null. Of
    several queues of a backend the largest counts, because a worker serves them side by side;
    backends are added up."""
    busy: Annotated[int, Field(ge=0)]
    """Workers that hold a job."""
    waiting: Annotated[int, Field(ge=0)]
    """Jobs that wait, for their turn or for their next attempt."""
    running: Annotated[int, Field(ge=0)]
    """Jobs that a worker holds."""
    queues: tuple[QueueDemand, ...]
    """The same of each queue."""


@router.get("/scale", operation_id="scale", response_model=Scale, responses=documented(422, 503))
async def scale(
    dependencies: Injected,
    caller: Caller,
    queue: Annotated[
        str | None,
        Query(
            pattern=QUEUE_NAME, description="Only this queue, as in `box.chat`; unknown: 0 workers."
        ),
    ] = None,
    backend: Annotated[
        str | None,
        Query(pattern=BACKEND_NAME, description="Only the queues of this backend."),
    ] = None,
) -> Response:
    """Get the number of workers that a queue, a backend or the fleet wants."""
    if None not in {queue, backend} and backend_of(queue or "") != backend:
        raise Refusal(
            InvalidRequest,
            f"queue={queue} is none of backend={backend}: name one of the two.",
            status=422,
        )
    reader = DemandReader(dependencies.connection)
    async with soon():
        roster = await dependencies.roster.recent()
        queues = [queue] if queue is not None else await reader.all_queues(roster)
        chosen = [
            name
            for name in queues
            if backend in (None, backend_of(name)) and caller.may_use_backend(backend_of(name))
        ]
        demand = await reader.read(chosen, roster)
    answer = Scale(
        workers=demand.workers,
        busy=demand.busy,
        waiting=demand.waiting,
        running=demand.running,
        queues=demand.queues,
    )
    return json_response(answer)
