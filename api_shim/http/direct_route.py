"""Busy POST routes in front of the application: ordinary requests need none of its layers.

FastAPI documents these routes, and serves every request with anything special or wrong in its
head. Any other request is admitted by the same rules, logged in the same way, and calls the same
function with the same arguments: its body is parsed and validated as FastAPI does it, and its
dependencies are built directly. FastAPI, Starlette and our own middleware are a third of a shim's
CPU a job (docs/adr/0034).
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, Generic, TypeVar

from fastapi import APIRouter, FastAPI, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send

from api_shim.call_turns import CallTurns
from api_shim.http.access_log import LoggedCall
from api_shim.http.auth_middleware import OPEN_PATHS
from api_shim.http.authentication import Authenticator, last_words, presented_key, revoked
from api_shim.http.headers import Preferences
from api_shim.http.json_body import parse_json, validate_json
from api_shim.http.ordinary_call import OrdinaryClient, OrdinaryHead, ordinary_head
from api_shim.http.problems import error_response
from contract.errors import FleetError
from contract.json_texts.json_scan import LARGE_BYTES
from contract.tenants import Permission
from telemetry.process_metrics import ProcessMetrics
from telemetry.trace_context import working_for
from telemetry.tracing import Tracing

Injected = TypeVar("Injected")
Build = Callable[[Scope, Receive, Preferences], Injected]
"""Builds the dependencies of one call."""

_REPORTED: Final = (HTTPException, RequestValidationError, FleetError)
"""Errors with a response of their own; any other is a defect."""


class DirectRoute(Generic[Injected]):
    """One of FastAPI's POST routes, as it serves ordinary requests."""

    def __init__(
        self,
        router: APIRouter,
        endpoint: Callable[[Any, Injected], Awaitable[Response]],
        build: Build[Injected],
        *,
        permission: Permission,
        query: bytes = b"",
    ) -> None:
        """`endpoint` is one of `router`; it is called with the body and what `build` returns.

        `permission` is what it requires of a key. `query` is one that clients send and that
        changes nothing.
        """
        self.query = query
        self.permission = permission
        routes = (each for each in router.routes if isinstance(each, APIRoute))
        self.route = next(each for each in routes if each.endpoint is endpoint)
        self._endpoint = endpoint
        self._build = build

    async def respond(
        self, scope: Scope, client: OrdinaryClient, preferences: Preferences, send: Send
    ) -> None:
        """Call the endpoint and send its response.

        Raises RequestValidationError, HTTPException, FleetError.
        """
        body = validate_json(parse_json(await client.body()), self.route)
        response = await self._endpoint(body, self._build(scope, client, preferences))
        await response(scope, client, send)


class DirectRoutes:
    """The server's application: ordinary requests go to a direct route, others to FastAPI."""

    def __init__(
        self,
        app: FastAPI,
        routes: Iterable[DirectRoute[Any]],
        metrics: ProcessMetrics,
        tracing: Tracing,
        *,
        max_body_bytes: int,
    ) -> None:
        """`app` has these routes too."""
        self._metrics = metrics
        self._tracing = tracing
        self._app = app
        self._routes = {each.route.path: each for each in routes}
        self._turns = CallTurns()
        self._max_body_bytes = min(max_body_bytes, LARGE_BYTES)  # larger ones need a thread

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, WebSocket or lifespan; of very many that come together few at once."""
        route = self._routes.get(scope["path"]) if scope["type"] == "http" else None
        bound = self._max_body_bytes
        if route is not None and (head := ordinary_head(scope, bound, route.query)) is not None:
            authenticator: Authenticator = self._app.state.authenticator
            admission = authenticator.admit_at_once(
                head.key, route.permission, head.host, is_local=head.is_local
            )
            if admission is not None:
                scope["app"], scope["route"] = self._app, route.route
                call = LoggedCall(scope, send, self._metrics, self._tracing)
                entry, permission = admission.entry, route.permission
                with working_for(call.trace), authenticator.track(entry, permission) as key_ended:
                    scope["state"]["key"] = entry
                    client = OrdinaryClient(receive, key_ended)
                    await self._turns.begin("" if entry is None else entry.owner.name)
                    await call.run(_serve(route, head, scope, client, call), receive)
                return
        if scope["type"] != "lifespan" and scope["path"] not in OPEN_PATHS:
            authenticator = self._app.state.authenticator
            await self._turns.begin(
                authenticator.known_tenant(presented_key(HTTPConnection(scope)))
            )
        await self._app(scope, receive, send)


async def _serve(
    route: DirectRoute[Any],
    head: OrdinaryHead,
    scope: Scope,
    client: OrdinaryClient,
    call: LoggedCall,
) -> None:
    """Send the response of a route, or that to its error; end a call whose key was revoked."""
    try:
        await route.respond(scope, client, head.preferences, call.send)
    except _REPORTED as error:
        if call.status is not None:
            raise
        reported = revoked() if client.is_revoked else error
        await error_response(reported, scope)(scope, client, call.send)
    if call.is_complete or not client.is_revoked:
        return
    if call.status is None:
        await error_response(revoked(), scope)(scope, client, call.send)
    else:
        body = last_words(scope)
        await call.send({"type": "http.response.body", "body": body, "more_body": False})
