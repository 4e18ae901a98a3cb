"""HEAD wherever GET works: the same head and no body (RFC 9110, 9.3.2).

FastAPI's routes for GET refuse HEAD. Here a HEAD is routed as a GET, unless the path has a route
for HEAD itself; the server omits the body. HEAD is safe: a route that would register a follower,
whose disconnect may cancel the job, checks `is_head` first.
"""

from collections.abc import Sequence
from typing import Final

from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

_ORIGINAL_METHOD: Final = "fleet.original_method"


class HeadAsGet:
    """Routes each HEAD as a GET."""

    def __init__(self, app: ASGIApp, *, routes: Sequence[BaseRoute]) -> None:
        """`routes` are the application's; their own HEAD routes stay in use."""
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the request, as a GET if it is a HEAD."""
        if scope["type"] == "http" and scope["method"] == "HEAD" and not self._has_own(scope):
            # A copy: the server reads its own scope to know that it must not send a body.
            scope = {**scope, "method": "GET", _ORIGINAL_METHOD: "HEAD"}
        await self._app(scope, receive, send)

    def _has_own(self, scope: Scope) -> bool:
        return any(route.matches(scope)[0] is Match.FULL for route in self._routes)


def original_method(scope: Scope) -> str:
    """The method that the client has sent."""
    method: str = scope.get(_ORIGINAL_METHOD) or scope.get("method", "")
    return method


def is_head(scope: Scope) -> bool:
    """Whether the client has sent a HEAD."""
    return original_method(scope) == "HEAD"
