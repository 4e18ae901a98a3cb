"""How a request of this surface is read: as the original reads it, whatever type it says it has.

Recipes for curl name no type (`curl .../api/generate -d '{...}'`), and curl then says that it sends
a form. Where a web page may have sent it (a browser says so in `Origin`), the type must be JSON all
the same: a page elsewhere cannot send that without asking first.
"""

from collections.abc import Callable, Coroutine
from typing import Any, Final

from fastapi import Request, Response
from typing_extensions import override

from api_shim.http.json_body import JsonRoute
from api_shim.ollama.chat_response import NDJSON
from api_shim.ollama.errors import OllamaErrorResponse

_JSON: Final = (b"content-type", b"application/json")
_EVERYWHERE: Final = (400, 401, 403, 413, 500, 503)
_DESCRIPTIONS: Final[dict[int, str]] = {
    400: "Something is wrong with the request, or the model cannot do what is asked.",
    401: "No API key, or one that is not known.",
    403: "Not for this caller.",
    404: "There is no such model.",
    409: "The job was cancelled, or the Idempotency-Key belongs to another request.",
    413: "The body is larger than FLEET_MAX_BODY_BYTES.",
    429: "The backend's account has no quota left.",
    500: "A defect of ours.",
    501: "It cannot work over a queue.",
    502: "The backend failed.",
    503: "The queue is full, nobody serves the model, or Redis does not answer.",
    504: "It took too long.",
    507: "The backend has no room on its disk.",
}


class AnyTypeRoute(JsonRoute):
    """A route that takes JSON by any name, unless a web page may have sent it."""

    @override
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the handler of a JSON route."""
        handler = super().get_route_handler()

        async def lenient(request: Request) -> Response:
            if "origin" in request.headers:
                return await handler(request)
            kept = [pair for pair in request.scope["headers"] if pair[0] != _JSON[0]]
            scope = {**request.scope, "headers": [*kept, _JSON]}
            return await handler(Request(scope, request.receive))

        return lenient


def told(*statuses: int, streamed: type[Any] | None = None) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may fail so; `streamed`: what a line of its stream is."""
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
"""Statuses with which a job may end that is no pull."""
