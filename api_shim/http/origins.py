"""Which web pages may call a shim from a browser: those of its own origin, and of FLEET_ORIGINS.

A browser lets a page read the response of another origin only if that response names the page's
origin (CORS), and asks first, by a preflight request, before it sends JSON or a header of ours. It
does not ask before it sends a form, a POST without a body, or opens a WebSocket, nor before a page
loads something as a picture or a script. What has no API key is refused here on every method,
because a page must not use the shim on its visitor's machine.

A page whose own name resolves to the shim's address (DNS rebinding) is of the shim's origin to a
browser. Only the name in the Host header tells: `Hosts` says which ones are a shim's.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from typing_extensions import override

from api_shim.http.listening import LONGEST_HOST, is_loopback
from api_shim.http.problems import Refusal, error_response

_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_METHOD: Final = "access-control-request-method"
_PREFLIGHT_AGE_S: Final = 7200
"""The longest that Chromium remembers the response to a preflight request; Firefox: a day."""
_WILDCARD: Final = r"[A-Za-z0-9._-]*"
"""What `*` within an origin stands for: a part of a host, or a port."""


class Origins:
    """The origins whose pages may call this shim."""

    def __init__(self, allowed: Sequence[str]) -> None:
        """`allowed` as in the setting: origins, each with `*` for any text within, or `*` alone."""
        self._allows_any = "*" in allowed
        patterns = (re.escape(each).replace(r"\*", _WILDCARD) for each in allowed if each != "*")
        self._pattern = "|".join(f"(?:{each})" for each in patterns)

    def cors(self) -> dict[str, Any] | None:
        """Arguments of Starlette's middleware; None if no other origin is allowed.

        Without credentials: a fleet has no cookies, and API keys are headers that a page sets.
        """
        if not self._allows_any and not self._pattern:
            return None
        return {
            "allow_origins": ("*",) if self._allows_any else (),
            "allow_origin_regex": self._pattern or None,
            "allow_methods": _METHODS,
            "allow_headers": ("*",),
            "allow_private_network": True,
            "expose_headers": ("*",),
            "max_age": _PREFLIGHT_AGE_S,
        }

    def allow(self, origin: str) -> bool:
        """Whether the setting names this origin."""
        return self._allows_any or bool(self._pattern and re.fullmatch(self._pattern, origin))

    def check(self, connection: HTTPConnection) -> None:
        """Check what a page may have sent without an API key; raises Refusal.

        A browser asks first before it sends a header with a key, so that such a call was allowed.
        """
        origin = connection.headers.get("origin")
        if origin is None:
            if _is_embedded_elsewhere(connection) and not self._allows_any:
                raise _refused("another site")
            return
        is_own = origin.partition("://")[2] == connection.headers.get("host")
        if not (is_own or _has_key(connection) or self.allow(origin)):
            raise _refused(origin[:200])


class Hosts:
    """The host names under which clients call this shim."""

    def __init__(self, listed: Sequence[str]) -> None:
        """`listed` as in the setting: names, each with `*` for any text within."""
        patterns = (re.escape(each).replace(r"\*", r"[a-z0-9._-]*") for each in listed)
        self._pattern = re.compile("|".join(f"(?:{each})" for each in patterns))
        self.allow = lru_cache(maxsize=256)(self._allow)
        """Whether a browser that names this host cannot have been led here by another site."""

    def is_listed(self, host: str) -> bool:
        """Whether the setting has this name."""
        return self._pattern.fullmatch(host) is not None

    def _allow(self, host: str) -> bool:
        host = host.removesuffix(".")
        # Nobody can have an address, or a name without a dot, resolve to another address.
        is_own = is_loopback(host) or "." not in host or _is_address(host)
        return is_own or self.is_listed(host)

    def check(self, connection: HTTPConnection) -> None:
        """Check the Host header; raises Refusal."""
        host = connection.url.hostname or ""
        if len(host) > LONGEST_HOST or not self.allow(host):
            raise Refusal(
                "unknown_host",
                f"This shim is not called {host[:200]}: FLEET_HOSTS names the hosts under which "
                "clients may call it, besides addresses and names without a dot.",
                status=403,
            )


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


class CrossOrigin(CORSMiddleware):
    """Starlette's middleware; a preflight request that is refused gets its surface's error."""

    def __init__(
        self, app: ASGIApp, *, logged: Callable[[ASGIApp], ASGIApp], options: Mapping[str, Any]
    ) -> None:
        """`options` as of `Origins.cors`; `logged` gives preflight requests an id and a log line.

        They are answered here, outside of the middleware that does so for all others.
        """
        super().__init__(app, **options)
        self._preflight = logged(self._respond)

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "OPTIONS":
            headers = Headers(scope=scope)
            if "origin" in headers and _METHOD in headers:
                await self._preflight(scope, receive, send)
                return
        await super().__call__(scope, receive, send)

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = self.preflight_response(Headers(scope=scope))
        await response(scope, receive, send)

    @override
    def preflight_response(self, request_headers: Headers) -> Response:
        """The response to a preflight request: 200, or 400 with the reason."""
        response = super().preflight_response(request_headers)
        status = response.status_code
        if status < HTTPStatus.BAD_REQUEST:
            return response
        origin, method = request_headers["origin"], request_headers[_METHOD]
        if not self.is_allowed_origin(origin):
            return _RefusedPreflight(_refused(origin[:200], status))
        why = f"Pages of other origins may not send {method[:40]}: only {', '.join(_METHODS)}."
        return _RefusedPreflight(Refusal("cross_origin", why, status=status, headers=_VARY))


class _RefusedPreflight(Response):
    """A refusal as the surface of the request's path writes errors."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(status_code=refusal.status_code)
        self._refusal = refusal

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await error_response(self._refusal, scope)(scope, receive, send)


_VARY: Final = {"Vary": "Origin"}


def _refused(who: str, status: int = 403) -> Refusal:
    return Refusal(
        "cross_origin",
        f"Pages of {who} may not call this fleet: FLEET_ORIGINS of the shim names the origins "
        "whose pages may.",
        status=status,
        headers=_VARY,
    )


def from_browser(connection: HTTPConnection) -> bool:
    """Whether a page in a browser may have sent this: other programs send none of its headers.

    Every header with the prefix counts: which of them are sent depends on the browser, its version,
    the kind of request, and the address, and new ones are added.
    """
    return any(name == "origin" or name.startswith("sec-fetch-") for name in connection.headers)


def _is_embedded_elsewhere(connection: HTTPConnection) -> bool:
    """Whether a page of another site loads this, as a picture or script; a link may lead here."""
    headers = connection.headers
    is_link = (
        headers.get("sec-fetch-mode") == "navigate" and connection.scope.get("method") == "GET"
    )
    return headers.get("sec-fetch-site") == "cross-site" and not is_link


def _has_key(connection: HTTPConnection) -> bool:
    """Whether a request has a header that a browser does not send to another origin unasked."""
    headers = connection.headers
    is_socket = connection.scope["type"] == "websocket"
    return not is_socket and ("authorization" in headers or "x-api-key" in headers)
