"""The composition root: settings in, an ASGI application out. Imports have no effects."""

import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

from fastapi import APIRouter, Depends, FastAPI, params
from fastapi_offline import FastAPIOffline
from starlette.types import ASGIApp, Receive, Scope

from api_shim.access.permission_gate import PermissionGate, permitted
from api_shim.access.route_permissions import check_routes
from api_shim.anthropic import models as anthropic_models
from api_shim.anthropic import routes as anthropic_messages
from api_shim.anthropic.errors import anthropic_envelope
from api_shim.anthropic.routes import MessageCall, betas_in
from api_shim.anthropic.stored_messages import MessageStore
from api_shim.batch import file_routes as openai_files
from api_shim.batch import message_batches
from api_shim.batch import routes as openai_batches
from api_shim.batch.driver import BatchDriver
from api_shim.cohere import routes as cohere_reranks
from api_shim.cohere.errors import cohere_envelope
from api_shim.dependencies import Dependencies, drop_in_call, open_dependencies
from api_shim.following.background_work import running
from api_shim.following.drop_in import DropInCall
from api_shim.following.shutdown import OpenCalls
from api_shim.http import openapi, problems
from api_shim.http.access_log import AccessLog
from api_shim.http.auth_middleware import AuthMiddleware
from api_shim.http.authentication import tenant_in
from api_shim.http.direct_route import DirectRoute, DirectRoutes
from api_shim.http.error_hints import RERANK_PATHS
from api_shim.http.head import HeadAsGet
from api_shim.http.headers import Preferences
from api_shim.http.json_body import BodyLimit, Limit
from api_shim.http.origins import CrossOrigin, Origins
from api_shim.http.problems import native_envelope
from api_shim.http.query_fields import only_known_fields
from api_shim.native import (
    aliases,
    backends,
    dead_letters,
    enqueue,
    events,
    health,
    jobs,
    keys,
    metrics,
    overview,
    queues,
    redrive,
    roster,
    scale,
    usage,
)
from api_shim.ollama import chat_routes, model_routes
from api_shim.ollama.errors import envelope as ollama_envelope
from api_shim.ollama.errors import library_envelope
from api_shim.openai import chat_routes as openai_generation
from api_shim.openai import image_routes as openai_images
from api_shim.openai import models as openai_models
from api_shim.openai.errors import envelope as openai_envelope
from api_shim.openai.responses import routes as openai_responses
from api_shim.page import front_page
from api_shim.settings import ShimSettings
from api_shim.submission.submission import Submission
from api_shim.tenants import deletion_routes
from api_shim.tenants.tenant_eraser import TenantEraser
from api_shim.webhooks import routes as webhooks
from api_shim.webhooks.deliverer import WebhookDeliverer
from telemetry.process_metrics import ProcessMetrics, installed_version
from telemetry.tracing import Tracing, tracing_of

_DESCRIPTION = """\
A queue in front of language-model backends. Enqueue a job, follow its events from anywhere and as
often as you like, disconnect, reconnect with the id of the last event, cancel.

Every error is an RFC 9457 problem with a stable `code`.
"""

_FORM_BYTES: Final = 2**20
_ENVELOPES: Final[Mapping[str, problems.Envelope]] = {
    "/api/": ollama_envelope,
    "/api/copy": library_envelope,
    "/api/delete": library_envelope,
    "/api/pull": library_envelope,
    "/api/v1": native_envelope,
    "/v1": openai_envelope,
    **dict.fromkeys(RERANK_PATHS, cohere_envelope),
    problems.ANTHROPIC: anthropic_envelope,
    "/v1/systemone": ollama_envelope,
}
"""How errors are rendered under these path prefixes; the longest prefix counts."""

_NATIVE: Final = (
    enqueue, events, jobs, redrive, dead_letters, roster, queues, scale, backends, aliases, keys,
    usage, overview, webhooks, deletion_routes,
)  # fmt: skip
"""The native routes. Order matters: `enqueue` has the wider pattern of the two POST families under
`/api/v1/jobs`, `events` the longer path; `redrive` has paths below `/dead` that are no ids.
"""
_OTHERS: Final = (
    health,
    metrics,
    chat_routes,
    model_routes,
    message_batches,
    anthropic_messages,
    anthropic_models,
    openai_generation,
    openai_responses,
    openai_images,
    openai_models,
    openai_files,
    openai_batches,
    cohere_reranks,
    front_page,
)
"""Routes that other programs define: health probes, clients of Ollama, Anthropic, OpenAI
and Cohere, browsers. `anthropic_models` has the paths of `openai_models` for Anthropic's clients.
"""


def create_app(settings: ShimSettings, open_calls: OpenCalls | None = None) -> FastAPI:
    """Build the application; `open_calls.close()` ends the streams of this process."""
    open_calls = open_calls or OpenCalls()
    counted = ProcessMetrics("shim", settings)
    tracing = tracing_of("shim", settings.otel_genai, os.environ)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        _complete_routes(app)
        async with (
            open_dependencies(settings, open_calls, counted, tracing) as dependencies,
            running(BatchDriver(dependencies).run()),
            running(WebhookDeliverer(dependencies).run()),
            running(TenantEraser(dependencies).run()),
        ):
            app.state.dependencies = dependencies
            app.state.authenticator = dependencies.authenticator
            app.state.audit_trail = dependencies.audit_trail
            app.state.complete = dependencies.open_calls.complete
            document.begin(openapi.BEGIN_AFTER_S)
            try:
                yield
            finally:
                document.drop()

    # /docs loads from this process, not from a CDN: a fleet may have no internet.
    app = FastAPIOffline(
        title="llm-fleet",
        version=installed_version(),
        description=_DESCRIPTION,
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.counted, app.state.tracing = counted, tracing
    _add_routes(app)
    problems.install(app, _ENVELOPES)
    document = openapi.install(app)
    _add_middleware(app, settings, counted, tracing)
    return app


def _add_routes(app: FastAPI) -> None:
    for each in _NATIVE:
        _include(app, each.router, Depends(only_known_fields))
    _include(app, keys.audit, Depends(only_known_fields))
    for other in _OTHERS:
        _include(app, other.router)
    _include(app, openai_images.forms)


def _complete_routes(app: FastAPI) -> None:
    """Have FastAPI complete its routes now, a third of a second before anybody is served.

    It does so when it first looks for a route, or renders the document: in another thread, too,
    behind a lock for which the event loop would wait.
    """
    nowhere: Scope = {"type": "http", "method": "GET", "path": "/-", "root_path": "", "headers": []}
    for route in app.router.routes:
        route.matches(dict(nowhere))


def _include(app: FastAPI, router: APIRouter, *dependencies: params.Depends) -> None:
    check_routes(router.routes)
    app.include_router(router, dependencies=[Depends(permitted), *dependencies])


def with_direct_routes(app: FastAPI, settings: ShimSettings) -> ASGIApp:
    """What the server runs: the application behind its busiest routes."""
    routes: list[DirectRoute[Any]] = [
        DirectRoute(openai_generation.router, openai_generation.chat, _drop_in, permission="chat"),
        DirectRoute(
            openai_generation.router, openai_generation.embed, _drop_in, permission="embed"
        ),
        DirectRoute(
            anthropic_messages.router,
            anthropic_messages.create,
            _message,
            permission="chat",
            query=b"beta=true",
        ),
        DirectRoute(enqueue.router, enqueue.chat, _native, permission="chat"),
        DirectRoute(enqueue.router, enqueue.embed, _native, permission="embed"),
    ]
    counted, tracing = app.state.counted, app.state.tracing
    return DirectRoutes(app, routes, counted, tracing, max_body_bytes=settings.max_body_bytes)


def _drop_in(scope: Scope, receive: Receive, preferences: Preferences) -> DropInCall:
    return drop_in_call(scope, receive, scope["app"].state.dependencies, preferences)


def _message(scope: Scope, receive: Receive, preferences: Preferences) -> MessageCall:
    return MessageCall.of(
        _drop_in(scope, receive, preferences),
        MessageStore(scope["app"].state.dependencies, tenant_in(scope)),
        betas_in(scope),
    )


def _native(scope: Scope, _: Receive, preferences: Preferences) -> Submission:
    dependencies: Dependencies = scope["app"].state.dependencies
    return Submission(dependencies.submission, tenant_in(scope), preferences)


def _add_middleware(
    app: FastAPI, settings: ShimSettings, counted: ProcessMetrics, tracing: Tracing
) -> None:
    """Middleware; the last one added is the outermost."""
    app.add_middleware(HeadAsGet, routes=app.routes)
    app.add_middleware(
        BodyLimit,
        max_bytes=settings.max_body_bytes,
        budget_bytes=settings.max_bodies_bytes,
        by_path={"/v1/files": _upload(settings)},
    )
    app.add_middleware(PermissionGate)
    origins = Origins(settings.origins)
    app.add_middleware(AuthMiddleware, origins=origins)
    app.add_middleware(AccessLog, metrics=counted, tracing=tracing)
    if (cors := origins.cors()) is not None:
        # Outside of all, so that pages can read errors.
        logged = partial(AccessLog, metrics=counted, tracing=tracing)
        app.add_middleware(CrossOrigin, logged=logged, options=cors)


def _upload(settings: ShimSettings) -> Limit:
    """The limit of a file with the form around it."""
    return Limit(settings.max_file_bytes + _FORM_BYTES, "FLEET_MAX_FILE_BYTES")
