"""Routes that accept JSON of any content type, as Ollama does, from programs that are no browser.

Recipes for curl set no type (`curl .../api/generate -d '{...}'`), so curl sends that of a form.
A page must say that it sends JSON, for which its browser asks the shim first.
"""

from collections.abc import Callable, Coroutine
from typing import Any, Final

from fastapi import Request, Response
from typing_extensions import override

from api_shim.http.json_body import JsonRoute
from api_shim.http.origins import from_browser
from api_shim.ollama.chat_response import NDJSON
from api_shim.ollama.errors import OllamaErrorResponse

_JSON: Final = (b"content-type", b"application/json")
_EVERYWHERE: Final = (400, 401, 403, 413, 500, 503)
_DESCRIPTIONS: Final[dict[int, str]] = {
    400: "The request is invalid, or the model does not support it.",
    401: "No API key, or an unknown one.",
    403: "The key lacks a permission, or may not use this model or backend.",
    404: "The model does not exist.",
    409: "The job was cancelled, or the Idempotency-Key belongs to another request.",
    413: "The body is larger than FLEET_MAX_BODY_BYTES.",
    429: "The backend's account has no quota left.",
    500: "An internal error.",
    501: "Not supported by a fleet.",
    502: "The backend failed.",
    503: "The queue is full, no worker serves the model, or Redis does not respond.",
    504: "The backend or the job timed out.",
    507: "The backend's disk is full.",
}


class AnyTypeRoute(JsonRoute):
    """A route that accepts JSON of any content type."""

    @override
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the handler of a JSON route."""
        handler = super().get_route_handler()

        async def lenient(request: Request) -> Response:
            if from_browser(request):
                return await handler(request)
            others = [pair for pair in request.scope["headers"] if pair[0] != _JSON[0]]
            scope = {**request.scope, "headers": [*others, _JSON]}
            return await handler(Request(scope, request.receive))

        return lenient


def documented(
    *statuses: int, streamed: type[Any] | None = None
) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route with these errors; `streamed` is the schema of a line."""
    responses: dict[int | str, dict[str, Any]] = {
        status: {"model": OllamaErrorResponse, "description": _DESCRIPTIONS[status]}
        for status in sorted({*statuses, *_EVERYWHERE})
    }
    if streamed is not None:
        line = {"schema": {"$ref": f"#/components/schemas/{streamed.__name__}"}}
        responses[200] = {
            "description": "One object a line, or one object with `stream: false`.",
            "content": {NDJSON: line},
        }
    return responses


JOB_ENDS: Final = (404, 409, 429, 502, 504)
"""Statuses with which a job may end, except a pull."""
