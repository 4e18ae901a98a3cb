"""Request bodies: bounded while they arrive, JSON only, parsed strictly.

The bound is an ASGI middleware, so it holds for every route and for bodies without a
Content-Length. The parser is pydantic's: Python's own accepts NaN and lone surrogates, which no
other process could encode again.
"""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, NamedTuple

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from typing_extensions import override

from api_shim.http.problems import Refusal, error_response
from contract.errors import PayloadTooLarge

_MEBIBYTE: Final = 2**20


class Limit(NamedTuple):
    """How large a body may be."""

    max_bytes: int
    setting: str
    """The setting that raises it."""

    def refusal(self) -> Refusal:
        """The error for a larger body."""
        return Refusal(
            PayloadTooLarge,
            f"The body may have at most {self.max_bytes} bytes "
            f"({self.max_bytes / _MEBIBYTE:.1f} MiB): send less, or raise {self.setting}.",
        )


class BodyLimit:
    """Refuses a body over the limit with a 413, before it is read if it has a Content-Length."""

    def __init__(
        self, app: ASGIApp, *, max_bytes: int, by_path: Mapping[str, Limit] | None = None
    ) -> None:
        """Wrap this application; `by_path` has paths with a limit of their own."""
        self._app = app
        self._usual = Limit(max_bytes, "FLEET_MAX_BODY_BYTES")
        self._by_path = by_path or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the request, counting the bytes of its body."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._by_path.get(scope["path"], self._usual)
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdecimal() and int(announced) > limit.max_bytes:
            # No `Connection: close`: the server drops the rest of the body unread, so a client
            # that reads only after it has sent everything still gets the response.
            await error_response(limit.refusal(), scope)(scope, receive, send)
            return
        await self._app(scope, _counted(receive, limit), send)


def _counted(receive: Receive, limit: Limit) -> Receive:
    taken = 0

    async def counting() -> Message:
        nonlocal taken
        message = await receive()
        if message["type"] == "http.request":
            taken += len(message.get("body", b""))
            if taken > limit.max_bytes:
                raise limit.refusal()
        return message

    return counting


class _StrictRequest(Request):
    """A request whose JSON body is parsed strictly."""

    @override
    async def json(self) -> Any:
        """The parsed body; raises Refusal."""
        try:
            return from_json(await self.body(), allow_inf_nan=False)
        except ValueError as error:
            raise invalid_json(error) from None


def invalid_json(error: ValueError) -> Refusal:
    """The error for a body that is not valid JSON.

    It names a position and what was expected there, never the body's text.
    """
    return Refusal("invalid_json", f"The body is not valid JSON in UTF-8: {error}.", status=400)


class JsonRoute(APIRoute):
    """A route that requires `Content-Type: application/json`.

    This also keeps web pages of other origins from using a shim on their visitor's machine: a
    browser does not send this content type to another origin without a preflight request.
    """

    @override
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the handler that FastAPI makes."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            strict_request = _StrictRequest(request.scope, request.receive)
            if self.body_field is not None and await strict_request.body():
                require_json(strict_request.headers)
            return await handler(strict_request)

        return strict


def require_json(headers: Headers) -> None:
    """Raise Refusal unless the body is uncompressed JSON."""
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise Refusal(
            "unsupported_media_type",
            f"The Content-Type is {media_type[:80] or 'missing'}: "
            "send the body as application/json.",
            status=415,
        )
    encoding = headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise Refusal(
            "unsupported_media_type",
            f"The body is compressed ({encoding[:40]}): send it without Content-Encoding.",
            status=415,
        )
