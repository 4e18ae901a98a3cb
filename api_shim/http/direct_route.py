"""Busy POST routes without FastAPI's matching and dependency injection, for ordinary requests.

FastAPI documents the route and serves every special request: one with a query, with preference
headers, or with another content type. Any other request calls the same function with the same
arguments: its body is parsed and validated as FastAPI does it, and its dependencies are built
directly. FastAPI's matching and injection were about a fifth of a shim's CPU a job
(docs/adr/0034).
"""

import re
from collections.abc import Awaitable, Callable
from typing import Any, Final, Generic, TypeVar

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from api_shim.http.headers import BACKEND_NAME, Preferences
from api_shim.http.json_body import invalid_json

Injected = TypeVar("Injected")

_SPECIAL: Final = frozenset(
    {
        b"idempotency-key", b"x-fleet-priority", b"x-fleet-on-disconnect", b"x-fleet-on-no-worker",
        b"content-encoding",
    }
)  # fmt: skip
_BACKEND: Final = re.compile(BACKEND_NAME)


class DirectRoute(BaseRoute, Generic[Injected]):
    """Serves the ordinary requests of one POST route; put it before FastAPI's routes."""

    def __init__(
        self,
        router: APIRouter,
        endpoint: Callable[[Any, Injected], Awaitable[Response]],
        build: Callable[[Request, Preferences], Injected],
    ) -> None:
        """`endpoint` is one of `router`; it is called with the body and what `build` returns."""
        routes = (each for each in router.routes if isinstance(each, APIRoute))
        self._route = next(each for each in routes if each.endpoint is endpoint)
        self._endpoint = endpoint
        self._build = build

    @override
    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """FULL for an ordinary request, else NONE."""
        if (
            scope["type"] != "http"
            or scope["path"] != self._route.path
            or scope["method"] != "POST"
        ):
            return Match.NONE, {}
        preferences = None if scope["query_string"] else _preferences(scope)
        if preferences is None:
            return Match.NONE, {}
        return Match.FULL, {"fleet.preferences": preferences, "route": self._route}

    @override
    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the endpoint and send its response; raises RequestValidationError, Refusal."""
        request = Request(scope, receive)
        body = self._validated(await request.body())
        built = self._build(request, scope["fleet.preferences"])
        response = await self._endpoint(body, built)
        await response(scope, receive, send)

    def _validated(self, data: bytes) -> Any:
        try:
            value: Any = from_json(data, allow_inf_nan=False)
        except ValueError as error:
            raise invalid_json(error) from None
        assert self._route.body_field is not None  # noqa: S101 - for the type checker
        body, errors = self._route.body_field.validate(value, {}, loc=("body",))
        if errors:
            raise RequestValidationError(errors, body=value)
        return body


def _preferences(scope: Scope) -> Preferences | None:
    """The preferences in the headers; None for a request that FastAPI must serve."""
    is_json, backend = False, None
    for name, value in scope["headers"]:
        if name == b"content-type":
            is_json = value == b"application/json"
        elif name == b"content-length":
            if value == b"0":
                return None
        elif name == b"x-fleet-backend":
            backend = value.decode("latin-1")
            if not _BACKEND.match(backend):
                return None
        elif name in _SPECIAL:
            return None
    return Preferences(backend=backend) if is_json else None
