"""API keys and the audit log over HTTP, for admins; the first key from this machine.

A key is in the response that creates it, and nowhere else.
"""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Depends, Path, Query, Response
from starlette.requests import HTTPConnection, Request

from api_shim.access.audit_trail import note_subject
from api_shim.dependencies import Dependencies, Injected
from api_shim.http.authentication import Admin, is_local
from api_shim.http.json_body import JsonRoute
from api_shim.http.problems import documented
from api_shim.native.jobs import json_response
from contract.errors import NotAllowed, UnknownKey
from contract.tenants import (
    KEY_ID_BEGINNING,
    AuditPage,
    IssuedKey,
    KeyChange,
    KeyFacts,
    KeyList,
    KeyRotation,
    NewKey,
)
from relay.scripts.id_prefixes import only_match


async def allowed(connection: HTTPConnection, dependencies: Injected, _: Admin) -> None:
    """Allow admins; without any key, clients on this machine. Raises NotAllowed."""
    if not dependencies.authenticator.has_keys and not is_local(connection):
        raise NotAllowed(
            "The first key is created on the machine that the shim runs on, without a proxy: "
            "run `fleet keys create --tenant NAME --admin` there, against 127.0.0.1."
        )


KeyId = Annotated[
    str, Path(description="The part of the key between its two `_`, or a unique prefix of it.")
]
router = APIRouter(
    prefix="/api/v1/keys", tags=["keys"], route_class=JsonRoute, dependencies=[Depends(allowed)]
)
_EXAMPLES: Final[Any] = {
    "first": {"summary": "The first key", "value": {"tenant": "me", "admin": True}},
    "tenant": {
        "summary": "For a tenant with twice the share",
        "value": {"tenant": "research", "weight": 2, "limit_jobs": 1000, "name": "notebook"},
    },
    "narrow": {
        "summary": "To embed with some models",
        "value": {"tenant": "search", "permissions": ["embed"], "models": ["bge-*"]},
    },
}
_CHANGES: Final[Any] = {
    "pull": {
        "summary": "May pull models as well",
        "value": {"permissions": ["chat", "embed", "models:read", "models:write"]},
    },
    "any": {"summary": "May use all models", "value": {"models": None}},
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
    request: Request,
    new: Annotated[NewKey, Body(openapi_examples=_EXAMPLES)],
    dependencies: Injected,
) -> Response:
    """Create a key that names a tenant; the first one must be an admin's and not expire."""
    issued = await dependencies.api_keys.issue(new)
    note_subject(request.scope, _told(issued))
    await dependencies.authenticator.refresh()
    return _shown_once(issued)


@router.get("", operation_id="list_keys", response_model=KeyList, responses=documented(403, 503))
async def list_keys(dependencies: Injected) -> Response:
    """List keys: tenants, rights, expiry, last use (to a minute); never the keys themselves."""
    keys = await dependencies.authenticator.keys()
    return json_response(KeyList(keys=await dependencies.api_keys.with_uses(keys)))


@router.delete(
    "/{id}",
    operation_id="revoke_key",
    response_model=KeyFacts,
    responses=documented(403, 404, 409, 422, 503),
)
async def revoke(request: Request, id: KeyId, dependencies: Injected) -> Response:
    """Revoke a key; every shim refuses it within FLEET_KEY_MAX_AGE_S, and ends its streams."""
    gone = await dependencies.api_keys.revoke(await _whole(id, dependencies))
    note_subject(request.scope, f"{gone.id} of {gone.tenant}")
    await dependencies.authenticator.refresh()
    return json_response(gone)


@router.patch(
    "/{id}",
    operation_id="change_key",
    response_model=KeyFacts,
    responses=documented(400, 403, 404, 409, 413, 415, 422, 503),
)
async def change(
    request: Request,
    id: KeyId,
    change: Annotated[KeyChange, Body(openapi_examples=_CHANGES)],
    dependencies: Injected,
) -> Response:
    """Change what a key gives; every shim knows it within FLEET_KEY_MAX_AGE_S.

    A field that is left out stays as it is. Open streams go on, unless their key has lost the
    permission.
    """
    changed = await dependencies.api_keys.change(await _whole(id, dependencies), change)
    note_subject(request.scope, _told(changed))
    await dependencies.authenticator.refresh()
    return json_response(changed)


@router.post(
    "/{id}/rotate",
    operation_id="rotate_key",
    status_code=201,
    response_model=IssuedKey,
    responses={
        201: {"description": "`key` is the new one, and is shown this once."},
        **documented(400, 403, 404, 409, 413, 415, 422, 503),
    },
)
async def rotate(
    request: Request,
    id: KeyId,
    dependencies: Injected,
    rotation: Annotated[KeyRotation, Body()] = KeyRotation(),  # noqa: B008 - it is immutable
) -> Response:
    """Replace a key by a new one with the same rights; both are valid for the overlap.

    Then the old one expires, and its streams end.
    """
    issued = await dependencies.api_keys.rotate(await _whole(id, dependencies), rotation)
    note_subject(request.scope, f"{issued.id} of {issued.tenant}, for {issued.replaces}")
    await dependencies.authenticator.refresh()
    return _shown_once(issued)


def _told(key: KeyFacts) -> str:
    """A key and what it gives, for the audit log."""
    rights = "admin" if key.admin else " ".join(key.permissions) or "nothing"
    models, backends = (",".join(each or ("*",)) for each in (key.models, key.backends))
    return f"{key.id} of {key.tenant}: {rights}; models {models}; backends {backends}"


def _shown_once(issued: IssuedKey) -> Response:
    headers = {"Cache-Control": "no-store"}
    return Response(issued.model_dump_json(), 201, headers, media_type="application/json")


async def _whole(id: str, dependencies: Dependencies) -> str:
    """The id of the key that a client means; raises UnknownKey, AmbiguousId."""
    if not KEY_ID_BEGINNING.match(id):
        raise UnknownKey("There is no such key: an id has 16 hexadecimal digits.")
    ids = [key.id for key in await dependencies.authenticator.keys() if key.id.startswith(id)]
    return only_match(id, ids) or id


audit = APIRouter(prefix="/api/v1/audit", tags=["keys"])


@audit.get(
    "", operation_id="list_audit", response_model=AuditPage, responses=documented(403, 422, 503)
)
async def list_audit(
    dependencies: Injected,
    _: Admin,
    *,
    refused: Annotated[
        bool, Query(description="What was refused to keys that lack the permission.")
    ] = False,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    before: Annotated[
        str | None,
        Query(pattern=r"^[0-9]{1,19}-[0-9]{1,19}$", description="`next` of the previous page."),
    ] = None,
) -> Response:
    """List what was done with rights to change the fleet: who, when, what; newest first."""
    log = dependencies.audit_trail.log
    return json_response(await log.page(limit=limit, before=before, refused=refused))
