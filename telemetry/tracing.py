"""Spans of requests and jobs, where OpenTelemetry's own variables say where to send them.

Without OTEL_EXPORTER_OTLP_ENDPOINT nothing of OpenTelemetry is imported and no span is made; the
trace that a client names is carried on nevertheless (trace_context.py). No span holds a prompt, an
answer, a query string or a key.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Literal

from telemetry.genai import GenAi
from telemetry.trace_context import TraceContext, current_trace, working_for

_log = logging.getLogger(__name__)

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_HTTP: Final = ("", "http/protobuf")

SpanKind = Literal["server", "producer", "consumer", "internal"]


class Span:
    """Part of a trace; this class records nothing, and passes on the parent's context."""

    def __init__(self, context: TraceContext | None = None) -> None:
        """`context` is what children and other processes get as their parent."""
        self.context = context

    def set(self, attributes: Mapping[str, Any]) -> None:
        """Add attributes."""

    def rename(self, name: str) -> None:
        """Change the name."""

    def end(self, *, error: str | None = None, at_s: float | None = None) -> None:
        """End the span, now or at a unix time, as an error of this code if there is one."""


class Tracing:
    """Begins spans; this class begins those that record nothing."""

    is_on: bool = False

    def __init__(self, genai: GenAi = "latest") -> None:
        """`genai` chooses the names of attributes about models."""
        self.genai = genai

    def begin(
        self,
        name: str,
        kind: SpanKind = "internal",
        *,
        parent: TraceContext | None = None,
        attributes: Mapping[str, Any] | None = None,
        at_s: float | None = None,
    ) -> Span:
        """Begin a span below `parent`, now or at a unix time; without a parent, a new trace."""
        del name, kind, attributes, at_s
        return Span(parent)

    @contextmanager
    def submitting(self, kind: str, parent: TraceContext | None = None) -> Iterator[Span]:
        """A span around an enqueue, below `parent` or else the current trace.

        The job carries its context.
        """
        parent = parent or current_trace()
        if not self.is_on:
            with working_for(parent):
                yield Span(parent)
            return
        span = self.begin(f"submit {kind}", "producer", parent=parent)
        error: str | None = None
        try:
            with working_for(span.context):
                yield span
        except Exception as failure:
            error = getattr(failure, "code", type(failure).__name__)
            raise
        finally:
            span.end(error=error)

    async def aclose(self) -> None:
        """Send what has ended, within two seconds."""


def tracing_of(process: str, genai: GenAi, environ: Mapping[str, str]) -> Tracing:
    """Tracing as OpenTelemetry's variables in `environ` say; `process` is `shim` or `worker`."""
    if not any(environ.get(name) for name in _ENDPOINTS) or _is_off(environ):
        return Tracing(genai)
    protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get(
        "OTEL_EXPORTER_OTLP_PROTOCOL", ""
    )
    if protocol not in _HTTP:
        _log.warning("no traces: OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf")
        return Tracing(genai)
    try:
        from telemetry.otel import OtelTracing  # noqa: PLC0415 - only where traces are wanted
    except ImportError as error:
        _log.warning(
            "no traces: OTEL_... names an endpoint, and %s; install llm-fleet[otel]", error
        )
        return Tracing(genai)
    return OtelTracing(process, genai)


def _is_off(environ: Mapping[str, str]) -> bool:
    is_disabled = environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    return is_disabled or environ.get("OTEL_TRACES_EXPORTER") == "none"
