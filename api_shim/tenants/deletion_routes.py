"""Deletion of everything that a tenant has, for admins: a request, and its receipt."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request, Response

from api_shim.access.audit_trail import note_subject
from api_shim.dependencies import Injected
from api_shim.http.authentication import Admin
from api_shim.http.problems import Refusal, documented
from api_shim.native.jobs import json_response
from contract.errors import LastAdmin
from contract.tenants import KeyFacts, TenantReceipt
from relay.deletion.tenant_deletions import TenantDeletions

router = APIRouter(prefix="/api/v1/tenants", tags=["keys"])

Name = Annotated[
    str, Path(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$", description="The tenant's name.")
]


@router.delete(
    "/{name}",
    operation_id="delete_tenant",
    status_code=202,
    response_model=TenantReceipt,
    responses=documented(403, 409, 422, 503),
)
async def delete(
    request: Request,
    name: Name,
    dependencies: Injected,
    caller: Admin,
    *,
    confirm: Annotated[str, Query(description="The tenant's name again.")],
    usage: Annotated[
        Literal["keep", "delete"],
        Query(description="Whether the ledger of what it has used is kept, for accounting."),
    ] = "keep",
) -> Response:
    """Delete everything of a tenant: keys, jobs, files, batches, webhooks, cached vectors.

    It goes on in the background, and after a restart; the receipt tells how far it is. Running jobs
    are cancelled. Nothing of it can be undone.
    """
    if confirm != name:
        raise Refusal(
            "not_confirmed",
            f"confirm={confirm[:64]!r} is not {name!r}: write the tenant's name again",
            status=422,
        )
    if caller.name == name:
        raise Refusal(
            "own_tenant",
            f"this call is of tenant {name} itself: delete it as an admin of another tenant",
            status=409,
        )
    _demand_admin(name, await dependencies.authenticator.keys())
    note_subject(request.scope, f"tenant {name}, usage: {usage}")
    deletions = TenantDeletions(dependencies.connection)
    await deletions.begin(name, by=caller.name, usage=usage)
    return _told(await deletions.receipt(name), 202)


def _demand_admin(tenant: str, keys: tuple[KeyFacts, ...]) -> None:
    """Check that the other keys can manage the fleet; raises LastAdmin."""
    others = [key for key in keys if key.tenant != tenant]
    if others and not any(key.admin and key.expires_at is None for key in others):
        raise LastAdmin(
            f"{tenant} has the last admin's key that does not expire: create another such key first"
        )


@router.get(
    "/{name}/deletion",
    operation_id="get_tenant_deletion",
    response_model=TenantReceipt,
    responses=documented(403, 404, 422, 503),
)
async def receipt(name: Name, dependencies: Injected, _: Admin) -> Response:
    """Get the receipt of a tenant's last deletion: what was deleted, and whether it has ended."""
    return _told(await TenantDeletions(dependencies.connection).receipt(name), 200)


def _told(receipt: TenantReceipt, status: int) -> Response:
    response = json_response(receipt)
    response.status_code = status
    return response
