"""The outermost middleware of ours: a request id, a log line, a response even to a defect of ours.

Never logged: bodies, query strings, headers. Defects are logged by class and place without their
text, because the text of a validation error repeats what the client sent.
"""

import asyncio
import logging
import re
import time
import traceback
from collections.abc import Awaitable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api_shim.http.headers import is_anthropic
from api_shim.http.problems import Refusal, error_response
from contract.errors import RelayUnavailable
from relay.chance import unique_id
from telemetry.process_metrics import ProcessMetrics
from telemetry.trace_context import TraceContext, context_of, working_for
from telemetry.tracing import Span, Tracing

log = logging.getLogger("api_shim.http.access_log")

_METHODS: Final = frozenset(
    {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "WEBSOCKET"}
)
_PROBES: Final = frozenset({"/healthz", "/livez", "/metrics", "/metrics/targets", "/readyz"})
"""Paths that are asked every few seconds: no span, and no line at INFO if they succeed."""
_STOPS: Final = RelayUnavailable(
    "this shim is shutting down and has not processed the request: retry",
    retry_after_s=1.0,
)
_LEFT: Final = Refusal("caller_left", "The client disconnected.", status=408)
_SAFE_ID: Final = re.compile(rb"^[\x21-\x7e]{1,128}$")
_REQUEST_ID: Final = b"x-request-id"
_JOB: Final = b"x-fleet-job"
_TRACEPARENT: Final = b"traceparent"
_TRACESTATE: Final = b"tracestate"
_READ: Final = frozenset({_REQUEST_ID, _TRACEPARENT, _TRACESTATE})


class AccessLog:
    """Logs and counts each request or WebSocket when it has ended."""

    def __init__(self, app: ASGIApp, metrics: ProcessMetrics, tracing: Tracing) -> None:
        """Wrap this application."""
        self._app = app
        self._metrics = metrics
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the call; log it when it has ended."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        call = LoggedCall(scope, send, self._metrics, self._tracing)
        with working_for(call.trace):
            await call.run(self._app(scope, receive, call.send), receive)


class LoggedCall:
    """One request or WebSocket, and what is logged about it."""

    def __init__(self, scope: Scope, send: Send, metrics: ProcessMetrics, tracing: Tracing) -> None:
        """Give it an id: the client's own, or a new one."""
        self._metrics = metrics
        headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
        found = {name: value for name, value in headers if name in _READ}
        given = found.get(_REQUEST_ID, b"")
        self.id = given.decode("latin-1") if _SAFE_ID.match(given) else unique_id()
        self.trace = _trace_in(found)
        """The trace of the client; of the call's span, if it has one."""
        self._span: Span | None = None
        if tracing.is_on and scope["path"] not in _PROBES:
            self._span = tracing.begin(_method(scope), "server", parent=self.trace)
            self.trace = self._span.context
        self.status: int | None = None
        """Of the response, once it has begun."""
        self.is_complete = False
        """Whether the response has ended."""
        self._scope = scope
        self._send = send
        self._job: str | None = None
        self._bytes = 0
        self._began = time.perf_counter()
        scope.setdefault("state", {})["request_id"] = self.id

    async def run(self, work: Awaitable[None], receive: Receive) -> None:
        """Run the call, send a response to a defect of ours, and log it."""
        try:
            await work
        except asyncio.CancelledError:
            # The process exits and waits no longer; the server would send a 500.
            await self._respond(_STOPS, receive)
            raise
        except ClientDisconnect:
            # It left while it sent its request: no client reads this response; the log has it.
            await self._respond(_LEFT, receive)
        except Exception as error:
            facts = {"request_id": self.id, **_where(error)}
            log.error("request broke", extra={"facts": facts})  # noqa: TRY400 - may repeat the body
            if not await self._respond(error, receive) and not self.is_complete:
                raise
        finally:
            if log.isEnabledFor(level := self._level):
                log.log(level, "request", extra={"facts": self._facts()})
            self._count()
            self._end_span()

    async def _respond(self, error: Exception, receive: Receive) -> bool:
        """Send an error, unless a response has begun or this is a WebSocket; returns whether."""
        if self._scope["type"] != "http" or self.status is not None:
            return False
        await error_response(error, self._scope)(self._scope, receive, self.send)
        return True

    async def send(self, message: Message) -> None:
        """Send a message of the application."""
        kind = message["type"]
        if kind == "http.response.body":
            self._bytes += len(message.get("body", b""))
            self.is_complete = not message.get("more_body", False)
        elif kind == "http.response.start":
            self.status = message["status"]
            headers: list[tuple[bytes, bytes]] = list(message.get("headers", ()))
            self._job = next((id.decode() for name, id in headers if name == _JOB), None)
            headers += [(name, self.id.encode()) for name in _names_of_id(self._scope)]
            if self._span is not None and self.trace is not None:
                headers.append((b"traceresponse", self.trace.traceparent.encode()))
            message["headers"] = headers
        elif kind == "websocket.close":
            self.status, self.is_complete = message.get("code", 1000), True
        await self._send(message)

    @property
    def _level(self) -> int:
        """Successful probes are frequent, so they are logged at DEBUG."""
        is_probe = self._scope["path"] in _PROBES and self.status == HTTPStatus.OK
        return logging.DEBUG if is_probe else logging.INFO

    def _count(self) -> None:
        """Count the call by its route's template: a path would be a name a job."""
        method, route, series = _method(self._scope), self._route, self._metrics.series
        series.count("http_requests_total", method, route, str(self.status or "none"))
        duration_s = time.perf_counter() - self._began
        series.bins("http_request_duration_seconds", method, route).observe(duration_s)

    @property
    def _route(self) -> str:
        return getattr(self._scope.get("route"), "path", "other")

    def _end_span(self) -> None:
        """End the span of the call, if there is one; a query string is no part of it."""
        if self._span is None:
            return
        method = _method(self._scope)
        self._span.rename(f"{method} {self._route}")
        status = {} if self.status is None else {"http.response.status_code": self.status}
        self._span.set({"http.request.method": method, "http.route": self._route, **status})
        is_fault = (self.status or 0) >= HTTPStatus.INTERNAL_SERVER_ERROR
        self._span.end(error=str(self.status) if is_fault else None)

    def _facts(self) -> dict[str, Any]:
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


def _names_of_id(scope: Scope) -> tuple[bytes, ...]:
    """The headers that have the request's id: Anthropic's surface has another one, too."""
    theirs = is_anthropic(scope) or scope["path"].startswith("/v1/messages")
    return (_REQUEST_ID, b"request-id") if theirs else (_REQUEST_ID,)


def _method(scope: Scope) -> str:
    """The method, of those that exist: a client may send any word."""
    method = scope.get("method", "WEBSOCKET")
    return method if method in _METHODS else "other"


def _trace_in(headers: Mapping[bytes, bytes]) -> TraceContext | None:
    if (parent := headers.get(_TRACEPARENT)) is None:
        return None
    state = headers.get(_TRACESTATE, b"")
    return context_of(parent.decode("latin-1"), state.decode("latin-1"))


def _where(error: BaseException) -> dict[str, Any]:
    frames = traceback.extract_tb(error.__traceback__)
    return {
        "error": type(error).__name__,
        "at": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-8:]],
    }
