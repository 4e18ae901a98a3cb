"""The spans of one attempt: its wait, loading, first token and stream, below the job's submit."""

from collections.abc import Callable, Mapping
from typing import Any

from contract.events import Delta, Done, Event, Failed, Image, Phase, Scores, Vectors
from contract.jobs import JobRecord
from telemetry.genai import OPERATIONS, PROVIDERS, Fact, attributes
from telemetry.trace_context import TraceContext
from telemetry.tracing import Span, Tracing

_OUTPUT = (Delta, Vectors, Scores, Image)


class AttemptTrace:
    """Begins and ends the spans of an attempt as its events come."""

    def __init__(
        self, tracing: Tracing, record: JobRecord, backend_type: str, now: Callable[[], float]
    ) -> None:
        """Begin the attempt; `now` is the unix time by Redis's clock, as in the record."""
        self._tracing = tracing
        self._now = now
        parent = None
        if record.traceparent is not None:
            parent = TraceContext(record.traceparent, record.tracestate)
        began_at = record.started_at or now()
        if record.attempt == 1:
            wait = tracing.begin("wait", parent=parent, at_s=record.ready_at)
            wait.set({"llmfleet.queue": record.queue})
            wait.end(at_s=began_at)
        self._attempt = tracing.begin(
            _name(record), "consumer", parent=parent, at_s=began_at,
            attributes={**_of(record), **self._genai(_facts(record, backend_type))},
        )  # fmt: skip
        self._phase: Span | None = None
        self._error: str | None = None
        self._outcome = "given_back"
        self._first = tracing.begin("first token", parent=self.context, at_s=began_at)
        self._stream: Span | None = None

    @property
    def context(self) -> TraceContext | None:
        """The attempt as the parent of what it calls."""
        return self._attempt.context

    def _genai(self, facts: Mapping[Fact, Any]) -> dict[str, Any]:
        return attributes(self._tracing.genai, facts)

    def on_event(self, event: Event) -> None:
        """Receive an event before it is appended."""
        if isinstance(event, Delta) and self._stream is not None:
            return
        if isinstance(event, Phase):
            self._on_phase(event)
        elif isinstance(event, Done | Failed):
            self._on_end(event)
        elif isinstance(event, _OUTPUT) and self._stream is None:
            if isinstance(event, Delta) and not event.has_words:
                return
            self._end_phase()
            self._first.end(at_s=self._now())
            self._stream = self._tracing.begin("stream", parent=self.context, at_s=self._now())

    def _on_phase(self, event: Phase) -> None:
        self._end_phase()
        if event.phase in ("loading", "pulling") and self._stream is None:
            name = "load" if event.phase == "loading" else "pull"
            self._phase = self._tracing.begin(name, parent=self.context, at_s=self._now())

    def _end_phase(self) -> None:
        if self._phase is not None:
            self._phase.end(at_s=self._now())
            self._phase = None

    def _on_end(self, event: Done | Failed) -> None:
        self._outcome = event.type
        if isinstance(event, Failed):
            self._error = event.code
            return
        usage = event.usage
        self._attempt.set(
            self._genai(
                {
                    "tokens_in": usage and usage.prompt_tokens,
                    "tokens_out": usage and usage.completion_tokens,
                    "finish_reasons": [event.finish_reason],
                }
            )
        )

    def failed(self, code: str) -> None:
        """The backend failed the attempt, or it was lost: `code` says why."""
        self._error = code

    def end(self) -> None:
        """End every span that is open."""
        self._end_phase()
        at_s = self._now()
        self._attempt.set({"llmfleet.outcome": self._outcome})
        if self._stream is not None:
            self._stream.end(error=self._error, at_s=at_s)
        else:
            self._first.end(error=self._error, at_s=at_s)
        self._attempt.end(error=self._error, at_s=at_s)


def _name(record: JobRecord) -> str:
    # The conventions' name of a span: operation and model, neither of which is a client's text.
    operation = OPERATIONS.get(record.kind, record.kind)
    return f"{operation} {record.model}" if record.model else operation


def _of(record: JobRecord) -> dict[str, Any]:
    return {
        "llmfleet.job.id": record.id,
        "llmfleet.job.kind": record.kind,
        "llmfleet.job.attempt": record.attempt,
        "llmfleet.job.class": record.priority,
        "llmfleet.queue": record.queue,
        "llmfleet.tenant": record.tenant,
    }


def _facts(record: JobRecord, backend_type: str) -> dict[Fact, Any]:
    if record.kind not in OPERATIONS:
        return {}
    return {
        "operation": OPERATIONS[record.kind],
        "provider": PROVIDERS.get(backend_type, backend_type),
        "model": record.model,
    }
