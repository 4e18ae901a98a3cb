"""The bounds of all connections of a shim, and a look at each of them once a second.

Clocks run here and nowhere else: a timer for each request would cost more than the request's head.
A connection is looked at when it holds a head that does not end, a body that does not come, or
bytes that its client does not read. Every refusal is counted by its reason.
"""

import logging
from collections import Counter
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final, NamedTuple, Protocol

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from api_shim.http.auth_middleware import OPEN_PATHS
from api_shim.http.problems import Refusal, error_response
from api_shim.server.connection_limits import ConnectionLimits, Verdict, most_connections
from api_shim.server.gathered_writes import GatheringTransport
from api_shim.settings import ShimSettings
from telemetry.series import Series

_log = logging.getLogger(__name__)

MOST_HEAD_BYTES: Final = 64 * 1024
"""Of the head of a request: its first line and headers, or trailers after its body."""
MOST_HEADERS: Final = 100
MOST_PIPELINED: Final = 32
"""Requests that a client may send on one connection before the response to the first."""
MOST_SMALL_CHUNKS: Final = 10_000
LEAST_CHUNK_BYTES: Final = 64
"""Of the chunks of a body on average, once there are so many: each costs as a large one does."""
LOOK_EVERY_S: Final = 1.0
LINGER_S: Final = 2.0
"""For a refused client to read its response; what it still sends is dropped."""
_LOG_EVERY_S: Final = 30.0
_RETRY_AFTER_S: Final = 5


class Closing(NamedTuple):
    """Why a connection is closed, and what its client is told."""

    reason: str
    """The label of `refused_connections_total`."""
    refusal: Refusal


HEAD_TOO_LARGE: Final = Closing(
    "head_too_large",
    Refusal(
        "head_too_large",
        f"The head of a request may have {MOST_HEAD_BYTES // 1024} KiB and {MOST_HEADERS} headers: "
        "send fewer or shorter headers, and long data in the body.",
        status=431,
    ),
)
MALFORMED: Final = Closing(
    "malformed", Refusal("malformed_request", "This is no valid HTTP/1.1 request.", status=400)
)
PIPELINED: Final = Closing(
    "pipelined",
    Refusal(
        "too_many_pipelined",
        f"A client may send {MOST_PIPELINED} requests before it has read the first response: wait "
        "for responses, or open more connections.",
        status=429,
    ),
)

SMALL_CHUNKS: Final = Closing(
    "small_chunks",
    Refusal(
        "chunks_too_small",
        f"A body of more than {MOST_SMALL_CHUNKS} chunks must have {LEAST_CHUNK_BYTES} bytes in "
        "each on average: send larger chunks.",
        status=400,
    ),
)

NO_HOST: Final = Closing(
    "malformed",
    Refusal("malformed_request", "An HTTP/1.1 request has one Host header.", status=400),
)
CHUNKS_IN_HTTP_1_0: Final = Closing(
    "malformed",
    Refusal("malformed_request", "Transfer-Encoding begins with HTTP/1.1.", status=400),
)
UNKNOWN_CODING: Final = Closing(
    "malformed",
    Refusal(
        "unsupported_transfer_coding", "Of transfer codings a shim knows `chunked`.", status=501
    ),
)


class Watched(Protocol):
    """A connection that is looked at once a second."""

    def look(self, now: float) -> None:
        """Close it if it has held something for too long."""
        ...


class WriteWatch:
    """Whether a client reads what it is sent."""

    def __init__(self, transport: GatheringTransport) -> None:
        """Nothing was written yet."""
        self._transport = transport
        self._taken_bytes = -1
        self._since = 0.0

    def stalled_s(self, now: float) -> float:
        """For how many seconds bytes wait of which the client has taken none."""
        taken_bytes = self._transport.taken_bytes
        if taken_bytes != self._taken_bytes or not self._transport.get_write_buffer_size():
            self._taken_bytes, self._since = taken_bytes, now
        return now - self._since


class ConnectionGuard:
    """The bounds of this process's connections, and what was refused because of them."""

    def __init__(self, settings: ShimSettings, app: FastAPI) -> None:
        """Refuse in the words of the application's surfaces."""
        self.head_s = settings.head_timeout_s
        self.least_upload_bytes = settings.min_upload_bytes_s * settings.head_timeout_s
        self.write_s = settings.write_timeout_s
        self.limits = ConnectionLimits(
            most_connections(settings.max_connections), settings.max_connections_per_address
        )
        self.head_too_slow = Closing("head_too_slow", _head_too_slow(self.head_s))
        self.body_too_slow = Closing(
            "body_too_slow", _body_too_slow(settings.min_upload_bytes_s, self.head_s)
        )
        self._app = app
        self._series: Series = app.state.counted.series
        self._series.read("connections", lambda: [((), float(self.limits.count))])
        self._untold: Counter[str] = Counter()
        self._told_at = 0.0

    def count(self, reason: str) -> None:
        """Count a connection that is closed or refused for this reason."""
        self._series.count("refused_connections_total", reason)
        self._untold[reason] += 1

    def refusing(self, app: ASGIApp, verdict: Verdict) -> ASGIApp:
        """The application of a connection beyond a bound: probes are served, the rest refused."""
        refusal = self.refusal(verdict)

        async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http" and scope["path"] in OPEN_PATHS:
                await app(scope, receive, send)
                return
            self.count(verdict)
            scope["app"] = self._app
            response = error_response(refusal, scope)
            response.headers["Connection"] = "close"
            await response(scope, receive, send)

        return refuse

    def refusal(self, verdict: Verdict) -> Refusal:
        """The response on a connection beyond a bound."""
        if verdict == "too_many_of_address":
            status, limit, setting = 429, self.limits.most_per_address, "_PER_ADDRESS"
            holder = "Your address"
        else:
            status, limit, setting = 503, self.limits.most, ""
            holder = "This shim"
        return Refusal(
            "too_many_connections",
            f"{holder} has {limit} connections, the most there may be: close some and retry, or "
            f"raise FLEET_MAX_CONNECTIONS{setting}.",
            status=status,
            retryable=True,
            retry_after_s=_RETRY_AFTER_S,
        )

    def response(self, refusal: Refusal, path: str = "") -> bytes:
        """A whole response as bytes, where the application has not seen the request."""
        scope: Scope = {"type": "http", "path": path, "headers": [], "app": self._app}
        response = error_response(refusal, scope)
        response.headers["Connection"] = "close"
        status = response.status_code
        head = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode()]
        head += [b"%s: %s" % pair for pair in response.raw_headers]
        return b"\r\n".join([*head, b"", bytes(response.body)])

    def look(self, connections: Iterable[Any], now: float) -> None:
        """Look at every connection; call it every `LOOK_EVERY_S`."""
        watched: Watched
        for watched in tuple(connections):
            watched.look(now)
        if self._untold and now - self._told_at > _LOG_EVERY_S:
            facts = {"connections": self.limits.count, "refused": dict(self._untold)}
            _log.warning("connections were refused", extra={"facts": facts})
            self._untold.clear()
            self._told_at = now


def _head_too_slow(head_s: float) -> Refusal:
    return Refusal(
        "head_too_slow",
        f"The head of the request did not come within {head_s:g} s: send it at once, or raise "
        "FLEET_HEAD_TIMEOUT_S.",
        status=408,
    )


def _body_too_slow(least_bytes_s: int, within_s: float) -> Refusal:
    return Refusal(
        "body_too_slow",
        f"The body came at less than {least_bytes_s} bytes a second for {within_s:g} s: "
        "send it without pauses, or lower FLEET_MIN_UPLOAD_BYTES_S.",
        status=408,
    )
