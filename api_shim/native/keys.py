"""API keys over HTTP: created, listed and revoked by admins; the first one from this machine.

A key is in the response that creates it, and nowhere else.
"""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Depends, Path, Response
from starlette.requests import HTTPConnection

from api_shim.dependencies import Injected
from api_shim.http.authentication import Admin, is_local
from api_shim.http.json_body import JsonRoute
from api_shim.http.problems import documented
from api_shim.native.jobs import json_response
from contract.errors import NotAllowed, UnknownKey
from contract.tenants import KEY_ID_BEGINNING, IssuedKey, KeyFacts, KeyList, NewKey
from relay.records import only_match


async def allowed(connection: HTTPConnection, dependencies: Injected, _: Admin) -> None:
    """Allow admins; without any key, clients on this machine. Raises NotAllowed."""
    if not dependencies.authenticator.has_keys and not is_local(connection):
        raise NotAllowed(
            "The first key is created on the machine that the shim runs on, without a proxy: "
            "run `fleet keys create --tenant NAME --admin` there, against 127.0.0.1."
        )


router = APIRouter(
    prefix="/api/v1/keys", tags=["keys"], route_class=JsonRoute, dependencies=[Depends(allowed)]
)
_EXAMPLES: Final[Any] = {
    "first": {"summary": "The first key", "value": {"tenant": "me", "admin": True}},
    "tenant": {
        "summary": "For a tenant with twice the share",
        "value": {"tenant": "research", "weight": 2, "limit_jobs": 1000, "name": "notebook"},
    },
}


@router.post(
    "",
    operation_id="create_key",
    status_code=201,
    response_model=IssuedKey,
    responses={
        201: {"description": "`key` is shown this once; only a digest of it is kept."},
        **documented(400, 403, 413, 415, 422, 503),
    },
)
async def create(
    new: Annotated[NewKey, Body(openapi_examples=_EXAMPLES)], dependencies: Injected
) -> Response:
    """Create a key that names a tenant; the first one must be an admin's and not expire."""
    issued = await dependencies.api_keys.issue(new)
    await dependencies.authenticator.refresh()
    headers = {"Cache-Control": "no-store"}
    return Response(issued.model_dump_json(), 201, headers, media_type="application/json")


@router.get("", operation_id="list_keys", response_model=KeyList, responses=documented(403, 503))
async def list_keys(dependencies: Injected) -> Response:
    """List keys with their tenants and rights; never the keys themselves."""
    return json_response(KeyList(keys=await dependencies.authenticator.keys()))


@router.delete(
    "/{id}",
    operation_id="revoke_key",
    response_model=KeyFacts,
    responses=documented(403, 404, 409, 422, 503),
)
async def revoke(
    id: Annotated[
        str,
        Path(description="The part of the key between its two `_`, or a unique prefix of it."),
    ],
    dependencies: Injected,
) -> Response:
    """Revoke a key; every shim refuses it within FLEET_KEY_MAX_AGE_S, and ends its streams."""
    if not KEY_ID_BEGINNING.match(id):
        raise UnknownKey("There is no such key: an id has 16 hexadecimal digits.")
    ids = [key.id for key in await dependencies.authenticator.keys() if key.id.startswith(id)]
    gone = await dependencies.api_keys.revoke(only_match(id, ids) or id)
    await dependencies.authenticator.refresh()
    return json_response(gone)
