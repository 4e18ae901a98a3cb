"""Which web pages may call a shim from a browser: those of its own origin, and of FLEET_ORIGINS.

A browser lets a page read the response of another origin only if that response names the page's
origin (CORS), and asks first, by a preflight request, before it sends JSON or a header of ours. It
does not ask before it sends a form, a POST without a body, or opens a WebSocket. Those are refused
here, because a page must not use the shim on its visitor's machine.
"""

import re
from collections.abc import Sequence
from typing import Any, Final

from starlette.requests import HTTPConnection

from api_shim.http.problems import Refusal

_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
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
        """Check what a browser sends without a preflight request; raises Refusal."""
        origin = connection.headers.get("origin")
        if origin is None or not _is_sent_unasked(connection):
            return
        is_own = origin.partition("://")[2] == connection.headers.get("host")
        if not is_own and not self.allow(origin):
            raise Refusal(
                "cross_origin",
                f"Pages of {origin[:200]} may not call this fleet: FLEET_ORIGINS of the shim names "
                "the origins whose pages may.",
                status=403,
            )


def _is_sent_unasked(connection: HTTPConnection) -> bool:
    """Whether a browser sends this to another origin without a preflight request."""
    if connection.scope["type"] == "websocket":
        return True
    headers = connection.headers
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    asks = media_type == "application/json" or "authorization" in headers or "x-api-key" in headers
    return connection.scope["method"] == "POST" and not asks
