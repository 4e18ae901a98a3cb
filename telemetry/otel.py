"""Spans that OpenTelemetry's SDK records and sends; imported only where traces are wanted.

Endpoint, headers, sampling and batches are the SDK's own variables (OTEL_...):
https://opentelemetry.io/docs/languages/sdk-configuration/
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from threading import Thread
from typing import Any, Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace import SpanKind as OtelKind
from opentelemetry.trace import Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from typing_extensions import override

from telemetry.genai import GenAi
from telemetry.trace_context import TraceContext, context_of
from telemetry.tracing import Span, SpanKind, Tracing

_LAST_S: Final = 2.0
_KINDS: Final[Mapping[SpanKind, OtelKind]] = {
    "server": OtelKind.SERVER,
    "producer": OtelKind.PRODUCER,
    "consumer": OtelKind.CONSUMER,
    "internal": OtelKind.INTERNAL,
}
_propagator: Final = TraceContextTextMapPropagator()


class RecordedSpan(Span):
    """A span of the SDK."""

    def __init__(self, span: OtelSpan) -> None:
        """Wrap a span that has begun."""
        carrier: dict[str, str] = {}
        _propagator.inject(carrier, set_span_in_context(span))
        super().__init__(context_of(carrier.get("traceparent"), carrier.get("tracestate")))
        self._span = span

    @override
    def set(self, attributes: Mapping[str, Any]) -> None:
        self._span.set_attributes(attributes)

    @override
    def rename(self, name: str) -> None:
        self._span.update_name(name)

    @override
    def end(self, *, error: str | None = None, at_s: float | None = None) -> None:
        if error is not None:
            self._span.set_attribute("error.type", error)
            self._span.set_status(Status(StatusCode.ERROR, error))
        self._span.end(_ns(at_s))


class OtelTracing(Tracing):
    """Begins spans that are sent in batches, by a thread of the SDK."""

    is_on = True

    def __init__(self, process: str, genai: GenAi) -> None:
        """Read the SDK's variables; nothing is sent before a span has ended."""
        super().__init__(genai)
        resource = Resource.create()  # with OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES
        if str(resource.attributes["service.name"]).startswith("unknown_service"):
            resource = resource.merge(Resource({"service.name": f"llm-fleet-{process}"}))
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("llm-fleet")

    @override
    def begin(
        self,
        name: str,
        kind: SpanKind = "internal",
        *,
        parent: TraceContext | None = None,
        attributes: Mapping[str, Any] | None = None,
        at_s: float | None = None,
    ) -> Span:
        carrier = {} if parent is None else {"traceparent": parent.traceparent}
        if parent is not None and parent.tracestate:
            carrier["tracestate"] = parent.tracestate
        context = _propagator.extract(carrier)
        return RecordedSpan(
            self._tracer.start_span(name, context, _KINDS[kind], attributes, start_time=_ns(at_s))
        )

    @override
    async def aclose(self) -> None:
        # A collector that does not answer may not keep the process: the thread is a daemon.
        loop, closed = asyncio.get_running_loop(), asyncio.Event()

        def close() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(closed.set)

        Thread(target=close, daemon=True).start()
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_S):
                await closed.wait()


def _ns(unix_s: float | None) -> int | None:
    return None if unix_s is None else int(unix_s * 1e9)
