"""The outermost middleware: a request id, a log line, and a response even to a defect of ours.

Never logged: bodies, query strings, headers. Defects are logged by class and place without their
text, because the text of a validation error repeats what the client sent.
"""

import asyncio
import json
import logging
import re
import time
import traceback
from http import HTTPStatus
from typing import Any, Final
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api_shim.http.headers import is_anthropic
from api_shim.http.problems import error_response
from contract.errors import RelayUnavailable
from telemetry.process_metrics import ProcessMetrics

log = logging.getLogger("api_shim.http.access_log")

_METHODS: Final = frozenset(
    {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "WEBSOCKET"}
)
_PROBES: Final = frozenset({"/healthz", "/readyz"})
_STOPS: Final = RelayUnavailable(
    "this shim is shutting down and has not processed the request: retry",
    retry_after_s=1.0,
)
_SAFE_ID: Final = re.compile(r"^[\x21-\x7e]{1,128}$")


class AccessLog:
    """Logs and counts each request or WebSocket when it has ended; a line is JSON."""

    def __init__(self, app: ASGIApp, metrics: ProcessMetrics) -> None:
        """Wrap this application."""
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the call; log it when it has ended."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        call = _Call(scope, send)
        try:
            await self._app(scope, receive, call.send)
        except asyncio.CancelledError:
            # The process exits and waits no longer; the server would send a 500.
            if scope["type"] == "http" and call.status is None:
                await error_response(_STOPS, scope)(scope, receive, call.send)
            raise
        except Exception as error:
            broke = {"request_id": call.id, "broke": _where(error)}
            log.error("%s", json.dumps(broke))  # noqa: TRY400 - its text may repeat the body
            if scope["type"] == "http" and call.status is None:
                await error_response(error, scope)(scope, receive, call.send)
            elif not call.is_complete:
                raise
        finally:
            log.log(call.level, "%s", json.dumps(call.facts()))
            call.count(self._metrics)


class _Call:
    """One request or WebSocket, and what is logged about it."""

    def __init__(self, scope: Scope, send: Send) -> None:
        given = Headers(scope=scope).get("x-request-id", "")
        self.id = given if _SAFE_ID.match(given) else uuid4().hex
        self.status: int | None = None
        self.is_complete = False
        self._scope = scope
        self._send = send
        self._job: str | None = None
        self._bytes = 0
        self._began = time.perf_counter()
        scope.setdefault("state", {})["request_id"] = self.id

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.body":
            self._bytes += len(message.get("body", b""))
            self.is_complete = not message.get("more_body", False)
        elif kind == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self.id
            if is_anthropic(self._scope):
                headers["request-id"] = self.id  # the name that Anthropic's clients look for
            self._job = headers.get("x-fleet-job")
        elif kind == "websocket.close":
            self.status, self.is_complete = message.get("code", 1000), True
        await self._send(message)

    @property
    def level(self) -> int:
        """Successful probes are frequent, so they are logged at DEBUG."""
        is_probe = self._scope["path"] in _PROBES and self.status == HTTPStatus.OK
        return logging.DEBUG if is_probe else logging.INFO

    def count(self, metrics: ProcessMetrics) -> None:
        """Count the call by its route's template: a path would be a name a job."""
        method = self._scope.get("method", "WEBSOCKET")
        method = method if method in _METHODS else "other"
        route = getattr(self._scope.get("route"), "path", "other")
        series = metrics.series
        series.count("http_requests_total", method, route, str(self.status or "none"))
        duration_s = time.perf_counter() - self._began
        series.bins("http_request_duration_seconds", method, route).observe(duration_s)

    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = {
            "request_id": self.id,
            "method": self._scope.get("method", "WEBSOCKET"),
            "path": self._scope["path"],
            "status": self.status,
            "ms": round((time.perf_counter() - self._began) * 1000, 1),
            "bytes": self._bytes,
        }
        entry = self._scope["state"].get("key")
        if entry is not None:
            facts |= {"tenant": entry.facts.tenant, "key": entry.facts.id}
        return {**facts, "job": self._job} if self._job else facts


def _where(error: BaseException) -> dict[str, Any]:
    frames = traceback.extract_tb(error.__traceback__)
    return {
        "error": type(error).__name__,
        "at": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-8:]],
    }
