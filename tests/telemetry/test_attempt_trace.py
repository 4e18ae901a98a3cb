"""The spans of one attempt, by the events that it appends."""

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from contract.events import Delta, Done, Event, Failed, Phase, Usage
from contract.jobs import JobRecord
from telemetry.attempt_trace import AttemptTrace
from telemetry.genai import GenAi
from telemetry.otel import OtelTracing

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def spans_of(
    *events: Event, attempt: int = 1, error: str | None = None, genai: GenAi = "latest"
) -> dict[str, ReadableSpan]:
    """The ended spans of an attempt with these events, by name; a second passes at each event."""
    tracing, kept = OtelTracing("worker", genai), InMemorySpanExporter()
    tracing._provider.add_span_processor(SimpleSpanProcessor(kept))
    record = JobRecord(
        id="a" * 32, v=1, kind="chat", status="running", queue="box.chat", backend="box", model="m",
        tenant="t", priority="standard", attempt=attempt, max_attempts=3, created_at=1000.0,
        started_at=1002.0, traceparent=PARENT,
    )  # fmt: skip
    now = iter(float(second) for second in range(1003, 2000))
    trace = AttemptTrace(tracing, record, "gemini", lambda: next(now))
    for event in events:
        trace.on_event(event)
    if error is not None:
        trace.failed(error)
    trace.end()
    return {span.name: span for span in kept.get_finished_spans()}


def seconds(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


def test_an_answer_is_wait_load_first_token_and_stream() -> None:
    found = spans_of(Phase(phase="loading"), Delta(content="a"), Delta(content="b"),
                     Done(usage=Usage(prompt_tokens=3, completion_tokens=2)))  # fmt: skip
    attributes = found["chat m"].attributes

    assert set(found) == {"wait", "load", "first token", "stream", "chat m"}
    assert seconds(found["wait"]) == 2.0
    assert seconds(found["load"]) == 1.0
    assert attributes is not None
    assert attributes["gen_ai.provider.name"] == "gcp.gemini"
    assert attributes["gen_ai.usage.input_tokens"] == 3
    assert attributes["llmfleet.outcome"] == "done"
    assert found["chat m"].status.is_ok


@pytest.mark.parametrize(
    ("event", "outcome"),
    [(Failed(code="x", message="secret"), "failed"), (Phase(phase="prefill"), "given_back")],
)
def test_an_attempt_that_fails_is_an_error_without_its_message(event: Event, outcome: str) -> None:
    found = spans_of(event, error="x")
    attempt = found["chat m"]

    assert not attempt.status.is_ok
    assert attempt.attributes is not None
    assert attempt.attributes["error.type"] == "x"
    assert attempt.attributes["llmfleet.outcome"] == outcome
    assert "stream" not in found
    assert "secret" not in attempt.to_json()


def test_a_later_attempt_is_beside_the_first_and_has_no_wait() -> None:
    found = spans_of(Delta(content="a"), Done(), attempt=2, genai="off")
    attempt = found["chat m"]

    assert "wait" not in found
    assert attempt.parent is not None
    assert f"{attempt.parent.span_id:016x}" == PARENT[36:52]
    assert attempt.attributes is not None
    assert not [name for name in attempt.attributes if name.startswith("gen_ai.")]
