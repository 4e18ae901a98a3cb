"""An OpenTelemetry collector for tests: receives OTLP over HTTP, and decodes what it gets."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


class SeenSpan(NamedTuple):
    """One span, as it was received."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    started_s: float
    ended_s: float
    kind: int
    is_error: bool
    attributes: dict[str, Any]


class Collector:
    """What was received."""

    def __init__(self) -> None:
        self.spans: list[SeenSpan] = []
        self.bodies: list[bytes] = []
        self.url = ""

    def named(self, name: str) -> list[SeenSpan]:
        return [span for span in self.spans if span.name == name]

    def receive(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        self.bodies.append(body)
        for resource in request.resource_spans:
            of_resource = {each.key: value_of(each.value) for each in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [seen(of_resource["service.name"], span) for span in scope.spans]


def value_of(value: Any) -> Any:
    which = value.WhichOneof("value")
    if which == "array_value":
        return [value_of(each) for each in value.array_value.values]
    return getattr(value, which)


def seen(service: str, span: Any) -> SeenSpan:
    return SeenSpan(
        service, span.name, span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(),
        span.start_time_unix_nano / 1e9, span.end_time_unix_nano / 1e9, span.kind,
        span.status.code == 2, {each.key: value_of(each.value) for each in span.attributes},
    )  # fmt: skip


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a loopback port; `url` is what OTEL_EXPORTER_OTLP_ENDPOINT takes."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.path == "/v1/traces"
            assert self.headers["Content-Type"] == "application/x-protobuf"
            collector.receive(body)
            reply = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    collector.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
