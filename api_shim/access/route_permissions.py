"""The one table of routes and the permission that each requires.

Every route of the application has a row; one without a row does not start (`check_routes`). What a
job requires is also demanded where it is enqueued (`api_shim/submission/caller_rights.py`), so
that a batch's lines, retries and other ways to a job are under the same rules.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Literal

from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute, compile_path

from contract.tenants import Permission

Need = Permission | Literal["nothing", "key"]
"""`nothing`: open to everybody; `key`: any valid key, whose own jobs and facts the route is about,
or where the job itself says which permission it takes."""

NEEDS: Final[Mapping[str, Need]] = {
    # What shows nothing of this fleet.
    "GET /": "nothing",
    "HEAD /": "nothing",
    "GET /healthz": "nothing",
    "GET /livez": "nothing",
    "GET /readyz": "nothing",
    "GET /openapi.json": "nothing",
    "GET /docs": "nothing",
    "GET /docs/oauth2-redirect": "nothing",
    "GET /page/{digest}/{path:path}": "nothing",
    "MOUNT /static-offline-docs": "nothing",
    # Jobs, by their kind.
    "POST /api/v1/jobs/chat": "chat",
    "POST /api/v1/jobs/count": "chat",
    "POST /api/v1/jobs/embed": "embed",
    "POST /api/v1/jobs/rerank": "rerank",
    "POST /api/v1/jobs/image": "image",
    "POST /api/v1/jobs/show": "models:read",
    "POST /api/v1/jobs/running": "models:read",
    "POST /api/v1/jobs/pull": "models:write",
    "POST /api/v1/jobs/load": "models:write",
    "POST /api/v1/jobs/unload": "models:write",
    "POST /api/v1/jobs/copy": "models:admin",
    "POST /api/v1/jobs/create": "models:admin",
    "POST /api/v1/jobs/delete": "models:admin",
    "POST /api/v1/jobs/{kind}": "key",
    # The caller's own jobs.
    "GET /api/v1/jobs": "key",
    "GET /api/v1/jobs/scheduled": "key",
    "GET /api/v1/jobs/{id}": "key",
    "DELETE /api/v1/jobs/{id}": "key",
    "GET /api/v1/jobs/{id}/request": "key",
    "GET /api/v1/jobs/{id}/events": "key",
    "WEBSOCKET /api/v1/jobs/{id}/events": "key",
    "POST /api/v1/jobs/{id}/retry": "key",
    "GET /api/v1/dead": "key",
    "DELETE /api/v1/dead": "key",
    "GET /api/v1/dead/groups": "key",
    "POST /api/v1/dead/redrive": "key",
    "GET /api/v1/dead/{id}": "key",
    "DELETE /api/v1/dead/{id}": "key",
    "GET /api/v1/usage": "key",
    "GET /api/v1/usage/limits": "key",
    "GET /api/v1/caller": "key",
    # The tenant's webhooks.
    "GET /api/v1/webhooks": "webhooks",
    "POST /api/v1/webhooks": "webhooks",
    "GET /api/v1/webhooks/{id}": "webhooks",
    "PATCH /api/v1/webhooks/{id}": "webhooks",
    "DELETE /api/v1/webhooks/{id}": "webhooks",
    "POST /api/v1/webhooks/{id}/rotate": "webhooks",
    "GET /api/v1/webhooks/{id}/deliveries": "webhooks",
    "POST /api/v1/webhooks/{id}/replay": "webhooks",
    # The fleet.
    "GET /api/v1/backends": "models:read",
    "GET /api/v1/models": "models:read",
    "GET /api/v1/workers": "models:read",
    "GET /api/v1/aliases": "models:read",
    "GET /api/v1/aliases/{name:path}": "models:read",
    "GET /api/v1/queues": "models:read",
    "GET /api/v1/scale": "models:read",
    "GET /api/v1/overview": "models:read",
    "GET /api/v1/overview/events": "models:read",
    "POST /api/v1/backends": "admin",
    "DELETE /api/v1/backends/{name}": "admin",
    "PUT /api/v1/aliases/{name:path}": "admin",
    "DELETE /api/v1/aliases/{name:path}": "admin",
    "POST /api/v1/queues/{queue}/pause": "admin",
    "POST /api/v1/queues/{queue}/resume": "admin",
    "PUT /api/v1/queues/{queue}/windows": "admin",
    "GET /api/v1/dead/messages": "admin",
    "DELETE /api/v1/dead/messages": "admin",
    "GET /api/v1/audit": "admin",
    "GET /api/v1/keys": "admin",
    "POST /api/v1/keys": "admin",
    "PATCH /api/v1/keys/{id}": "admin",
    "DELETE /api/v1/keys/{id}": "admin",
    "GET /api/v1/limits": "admin",
    "DELETE /api/v1/tenants/{name}": "admin",
    "GET /api/v1/tenants/{name}/deletion": "admin",
    "POST /api/v1/keys/{id}/rotate": "admin",
    "GET /metrics": "admin",
    "GET /metrics/targets": "admin",
    # Ollama.
    "POST /api/chat": "chat",
    "POST /api/generate": "chat",
    "POST /api/embed": "embed",
    "POST /api/embeddings": "embed",
    "GET /api/tags": "models:read",
    "HEAD /api/tags": "models:read",
    "GET /api/ps": "models:read",
    "POST /api/show": "models:read",
    "POST /api/pull": "models:write",
    "POST /api/copy": "models:admin",
    "POST /api/create": "models:admin",
    "DELETE /api/delete": "models:admin",
    "POST /api/push": "models:admin",
    "HEAD /api/blobs/{digest}": "models:admin",
    "POST /api/blobs/{digest}": "models:admin",
    "GET /api/version": "key",
    "HEAD /api/version": "key",
    # OpenAI and Anthropic.
    "POST /v1/chat/completions": "chat",
    "POST /v1/completions": "chat",
    "POST /v1/embeddings": "embed",
    "POST /v1/images/generations": "image",
    "POST /v1/images/edits": "image",
    "GET /v1/models": "models:read",
    "GET /v1/models/{model:path}": "models:read",
    "POST /v1/responses": "chat",
    "POST /v1/responses/input_tokens": "chat",
    "POST /v1/responses/compact": "chat",
    "GET /v1/responses/{id}": "key",
    "DELETE /v1/responses/{id}": "key",
    "POST /v1/responses/{id}/cancel": "key",
    "GET /v1/responses/{id}/input_items": "key",
    "POST /v1/messages": "chat",
    "POST /v1/messages/count_tokens": "chat",
    "GET /v1/messages/{id}": "key",
    # Files and batches; the lines of a batch also need what their jobs do.
    "POST /v1/files": "files",
    "GET /v1/files": "files",
    "GET /v1/files/{file_id}": "files",
    "DELETE /v1/files/{file_id}": "files",
    "GET /v1/files/{file_id}/content": "files",
    "POST /v1/batches": "batches",
    "GET /v1/batches": "batches",
    "GET /v1/batches/{batch_id}": "batches",
    "POST /v1/batches/{batch_id}/cancel": "batches",
    "POST /v1/messages/batches": "batches",
    "GET /v1/messages/batches": "batches",
    "GET /v1/messages/batches/{id}": "batches",
    "DELETE /v1/messages/batches/{id}": "batches",
    "POST /v1/messages/batches/{id}/cancel": "batches",
    "GET /v1/messages/batches/{id}/results": "batches",
    # Cohere, Jina and vLLM.
    "POST /v2/rerank": "rerank",
    "POST /v1/rerank": "rerank",
    "POST /rerank": "rerank",
    "POST /v1/score": "rerank",
    "POST /score": "rerank",
    "POST /v2/embed": "embed",
}

_PATTERNS: Final = tuple(
    (method, compile_path(path)[0], name)
    for name in NEEDS
    for method, _, path in (name.partition(" "),)
    if "{" in path
)


def row_of(method: str, path: str) -> str | None:
    """The row of the table for a request; None if no route takes it.

    `method` is WEBSOCKET for a WebSocket. A path that several rows fit is that of the first one,
    and one without parameters counts before all others.
    """
    for each in _methods(method):
        name = f"{each} {path}"
        if name in NEEDS:
            return name
        for wanted, pattern, row in _PATTERNS:
            if wanted == each and pattern.match(path):
                return row
    return None


def _methods(method: str) -> tuple[str, ...]:
    """The methods whose routes serve this one: HEAD is served by GET if it has no route."""
    return ("HEAD", "GET") if method == "HEAD" else (method,)


def rows_of(route: BaseRoute) -> Iterator[str]:
    """The rows that a route must have."""
    if isinstance(route, Route):
        # Starlette adds HEAD to plain routes for GET.
        yield from (f"{each} {route.path}" for each in sorted(_own_methods(route)))
    elif isinstance(route, WebSocketRoute):
        yield f"WEBSOCKET {route.path}"
    elif isinstance(route, Mount):
        yield f"MOUNT {route.path}"


def _own_methods(route: Route) -> set[str]:
    methods = set(route.methods or ())
    return methods - {"HEAD"} if "GET" in methods else methods


def check_routes(routes: Iterable[Any]) -> None:
    """Raise LookupError for a route without a row: nobody has said who may call it."""
    missing = [row for route in routes for row in rows_of(route) if row not in NEEDS]
    if missing:
        raise LookupError(f"route_permissions.py has no row for {', '.join(missing)}")
