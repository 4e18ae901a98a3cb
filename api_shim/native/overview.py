"""The whole fleet at a glance, once or every second; and who the caller is."""

from typing import Any, Final

from fastapi import APIRouter, Request, Response

from api_shim.dependencies import Injected
from api_shim.following.event_stream import StateStreamResponse
from api_shim.http.authentication import Caller
from api_shim.http.head import is_head
from api_shim.http.problems import documented
from api_shim.native.jobs import json_response
from api_shim.overview.fleet_state import FleetState
from contract import sse
from contract.tenants import Tenant
from contract.wire import WireModel

router = APIRouter(prefix="/api/v1", tags=["overview"])

_EVENTS: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "`overview` events with a state each second; `unavailable` instead while "
        "Redis does not answer. The stream does not end.",
        "content": {
            sse.MEDIA_TYPE: {
                "schema": {
                    "type": "object",
                    "properties": {
                        "event": {"enum": ["overview", "unavailable"]},
                        "data": {
                            "type": "string",
                            "contentMediaType": "application/json",
                            "contentSchema": {"$ref": "#/components/schemas/FleetState"},
                        },
                    },
                    "required": ["event", "data"],
                }
            }
        },
    }
}


class CallerView(WireModel):
    """Who calls, and what the fleet requires of callers."""

    tenant: Tenant
    """The tenant of the caller's key; without keys `default`, an admin."""
    needs_key: bool
    """Whether this fleet has API keys, so that every call needs one."""


@router.get(
    "/overview", operation_id="get_overview", response_model=FleetState, responses=documented(503)
)
async def overview(dependencies: Injected, caller: Caller) -> Response:
    """Get the state of the fleet: concerns, sums, queues, workers, backends.

    A tenant sees its own waiting jobs by name, and everybody's in the sums.
    """
    return json_response(await dependencies.fleet_watch.state(caller))


@router.get(
    "/overview/events",
    operation_id="watch_overview",
    response_class=Response,
    responses={**_EVENTS, **documented(503)},
)
async def watch(request: Request, dependencies: Injected, caller: Caller) -> Response:
    """Watch the state of the fleet, each second.

    All watchers of a process share one read a second.
    """
    if is_head(request.scope):
        return Response(media_type=sse.MEDIA_TYPE)
    frames = dependencies.fleet_watch.frames(caller)
    return StateStreamResponse(frames, dependencies.open_calls)


@router.get("/caller", operation_id="get_caller", response_model=CallerView, responses=documented())
async def caller_view(dependencies: Injected, caller: Caller) -> Response:
    """Get the caller's tenant and rights, as its key has them."""
    has_keys = dependencies.authenticator.has_keys
    return json_response(CallerView(tenant=caller, needs_key=has_keys))
