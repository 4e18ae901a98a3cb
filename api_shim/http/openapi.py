"""The document at /openapi.json: FastAPI's, with what FastAPI cannot know added.

These are: a summary of each operation; `application/problem+json` for errors, except on the drop-in
surfaces; the schema of events, which are passed on unparsed and so are no route's response model;
and API keys, which a middleware checks.
"""

import asyncio
import logging
import re
import threading
from collections.abc import Callable
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api_shim.http.auth_middleware import OPEN_PATHS
from api_shim.http.error_hints import RERANK_PATHS
from api_shim.http.problems import PROBLEM_JSON, documented
from contract.events import KnownEvent
from contract.json_lines import json_line

_log = logging.getLogger(__name__)

JOB_HEADERS: Final = {
    "X-Fleet-Job": {
        "schema": {"type": "string"},
        "description": "The job: follow it at /api/v1/jobs/<id>/events.",
    },
    "X-Fleet-Ignored": {
        "schema": {"type": "string"},
        "description": "Fields of the request that have no effect.",
    },
}
"""Headers of a response to a drop-in call, as documented."""
_DOCS: Final = "/docs"
_UNFRAMED: Final = (
    (b"content-security-policy", b"frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
)


class Document:
    """A document that takes a second of CPU time to render, and is rendered once, in a thread."""

    def __init__(self, render: Callable[[], bytes]) -> None:
        """`render` is called in a thread."""
        self._render = render
        self._rendering: asyncio.Task[bytes] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, after_s: float) -> None:
        """Render it after `after_s` seconds, or at the first `read`."""
        self._timer = asyncio.get_running_loop().call_later(after_s, self._start)

    async def read(self) -> bytes:
        """The document, once it is rendered."""
        return await asyncio.shield(self._start())

    def drop(self) -> None:
        """Stop rendering it."""
        if self._timer is not None:
            self._timer.cancel()
        if self._rendering is not None:
            self._rendering.cancel()

    def _start(self) -> asyncio.Task[bytes]:
        if self._rendering is None:
            self._rendering = asyncio.create_task(asyncio.to_thread(self._render))
            self._rendering.add_done_callback(self._rendered)
        return self._rendering

    def _rendered(self, rendering: asyncio.Task[bytes]) -> None:
        """After a failure the next `read` tries again: one of a moment must not last for ever."""
        if rendering.cancelled():
            return
        if (error := rendering.exception()) is not None:
            _log.error("%s could not be rendered", _PATH, exc_info=error)
            self._rendering = None


BEGIN_AFTER_S: Final = 20.0
"""At the start of a shim, rendering would compete with the first requests for the CPU."""


_SCHEMAS: Final = "#/components/schemas/{model}"
_PATH: Final = "/openapi.json"
_FIRST_ERROR: Final = 400
_UNDOCUMENTED: Final = "HTTPValidationError"
_SENTENCE: Final = re.compile(r"(?<=\.) ")
_CLAUSE: Final = re.compile(r"[:;] ")


_ENCODED: Final[dict[tuple[str, ...], bytes]] = {}
"""By version and operations: applications of one process differ in settings, not in routes."""
_RENDERING: Final = threading.Lock()
"""Applications of one process share routes, which FastAPI completes while it renders them."""


def install(app: FastAPI) -> Document:
    """Replace the application's OpenAPI document; returns it, to be built when serving starts."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    def encoded() -> bytes:
        key = (app.version, *sorted(str(route) for route in app.routes))
        with _RENDERING:
            if key not in _ENCODED:
                _ENCODED[key] = json_line(document())
            return _ENCODED[key]

    app.openapi = document  # type: ignore[method-assign] # FastAPI's documented way to extend it
    whole = Document(encoded)

    async def send(request: Request) -> Response:  # noqa: ARG001 - the same for all clients
        return Response(await whole.read(), media_type="application/json")

    # FastAPI's own route builds it on the event loop.
    app.router.routes[:] = [it for it in app.routes if getattr(it, "path", "") != _PATH]
    app.add_route(_PATH, send, include_in_schema=False)
    for route in app.routes:
        if isinstance(route, Route) and route.path.startswith(_DOCS):
            route.app = _unframed(route.app)
    return whole


def _unframed(app: ASGIApp) -> ASGIApp:
    """The same page, which no page shows as a part of it: its buttons send requests."""

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *_UNFRAMED]}
            await send(message)

        await app(scope, receive, sending)

    return page


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation["summary"] = summary(operation["description"])
            _drop_undocumented(operation["responses"])
            if path in OPEN_PATHS:
                operation["security"] = []
            elif not is_drop_in(path):
                _add_refusals(operation["responses"])
            if not is_drop_in(path):
                _mark_problems(operation["responses"])
    document["components"]["securitySchemes"] = _KEYS
    document["security"] = [{scheme: []} for scheme in _KEYS]
    schemas = document["components"]["schemas"]
    for name in (_UNDOCUMENTED, "ValidationError"):
        schemas.pop(name, None)
    _add_events(schemas)
    return document


def summary(description: str) -> str:
    """The first sentence of a description, or its first clause if that is a phrase.

    FastAPI's default, the function's name, is not clear enough.
    """
    sentence = _SENTENCE.split(" ".join(description.split()), maxsplit=1)[0].rstrip(".")
    clause = _CLAUSE.split(sentence, maxsplit=1)[0]
    return f"{clause if ' ' in clause else sentence}."


def _add_refusals(responses: dict[str, Any]) -> None:
    # 422: an unknown query field (query_fields.py).
    for status, response in documented(401, 403, 422).items():
        responses.setdefault(str(status), {"description": response["description"]})


def is_drop_in(path: str) -> bool:
    """Whether a path belongs to a surface with an error format of its own."""
    return path.startswith(("/v1/", "/api/", *RERANK_PATHS)) and not path.startswith("/api/v1/")


def _drop_undocumented(responses: dict[str, Any]) -> None:
    for status, response in list(responses.items()):
        if _UNDOCUMENTED in str(response):
            # FastAPI adds it to every route with a parameter; these parameters cannot be invalid.
            del responses[status]


def _mark_problems(responses: dict[str, Any]) -> None:
    for status, response in responses.items():
        if int(status) >= _FIRST_ERROR:
            problem = {"$ref": _SCHEMAS.format(model="Problem")}
            response["content"] = {PROBLEM_JSON: {"schema": problem}}


def _add_events(schemas: dict[str, Any]) -> None:
    """Add `Event`: every event of a log, with the `id` and `at` of its frame."""
    schema = TypeAdapter(KnownEvent).json_schema(ref_template=_SCHEMAS, mode="serialization")
    members = schema.pop("$defs")
    for name, member in members.items():
        if "type" in member.get("properties", {}) and "const" in member["properties"]["type"]:
            member["properties"] = {**_FRAME, **member["properties"]}
            member["required"] = sorted({*member.get("required", ()), "at", "type"})
            # The suffix: `Image` is an event here, and may name another schema later.
            name = f"{name}Event"  # noqa: PLW2901
        schemas.setdefault(name, member)
    mapping = schema["discriminator"]["mapping"]
    schema["discriminator"]["mapping"] = {kind: f"{ref}Event" for kind, ref in mapping.items()}
    schema["oneOf"] = [{"$ref": f"{each['$ref']}Event"} for each in schema["oneOf"]]
    schemas["Event"] = {**schema, "title": "Event", "description": "One event of a job's log."}


_KEYS: Final[dict[str, Any]] = {
    "key": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "flk_<id>_<secret>",
        "description": "An API key. Needed once any is configured; until then only clients on the "
        "shim's own machine are served.",
    },
    "keyHeader": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Api-Key",
        "description": "The same key, where `Authorization` is used by a proxy.",
    },
}
_FRAME: Final[dict[str, Any]] = {
    "id": {
        "type": "string",
        "pattern": "^[0-9]+-[0-9]+$",
        "description": "`<attempt>-<seq>`, the cursor; absent on a fresh `queued`.",
    },
    "at": {"type": "number", "description": "Unix seconds."},
}
