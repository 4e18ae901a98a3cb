"""The gate: no route runs unless the caller's key has the permission that the route requires.

It stands in two places. `PermissionGate`, a middleware, refuses before a body is read. `permitted`,
a dependency of every route, asks the table again by the route that was matched, so that no path can
be read in two ways.
"""

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from api_shim.access.audit_trail import AuditTrail
from api_shim.access.route_permissions import NEEDS, Need, row_of
from api_shim.http.auth_middleware import reject
from api_shim.http.authentication import Authenticator, tenant_in
from contract.errors import NotAllowed


class PermissionGate:
    """Refuses a call whose key lacks what its route requires, and has changes recorded."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap this application, inside of `AuthMiddleware`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the call if it is allowed; else send the reason."""
        row = _row_of(scope)
        if row is None or NEEDS[row] == "nothing":
            await self._app(scope, receive, send)
            return
        trail: AuditTrail = scope["app"].state.audit_trail
        try:
            demand(NEEDS[row], scope)
        except NotAllowed as error:
            await trail.refused(scope, row)
            await reject(error, scope, receive, send)
            return
        await self._app(scope, receive, trail.watched(scope, row, send))


def _row_of(scope: Scope) -> str | None:
    if scope["type"] == "websocket":
        return row_of("WEBSOCKET", scope["path"])
    return row_of(scope["method"], scope["path"]) if scope["type"] == "http" else None


def demand(need: Need, scope: Scope) -> None:
    """Check a call's key, and end the call when the key loses the permission; raises NotAllowed."""
    match need:
        case "nothing" | "key":
            return
        case permission:
            tenant_in(scope).require(permission)
            authenticator: Authenticator = scope["app"].state.authenticator
            authenticator.keep_while(scope["state"].get("key_ended"), permission)


async def permitted(connection: HTTPConnection) -> None:
    """Ask the table again, by the route; raises NotAllowed."""
    scope = connection.scope
    method = "WEBSOCKET" if scope["type"] == "websocket" else scope["method"]
    match NEEDS[f"{method} {scope['route'].path}"]:
        case "nothing" | "key":
            return
        case permission:
            tenant_in(scope).require(permission)
