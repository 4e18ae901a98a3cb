"""What a worker counts of one attempt, from the events that it appends to the job's log."""

from collections.abc import Callable
from time import monotonic

from contract.events import Delta, Done, Event, Failed, Image, Scores, Usage, Vectors
from contract.jobs import JobRecord
from contract.redis_keys import backend_of
from telemetry.attempt_trace import AttemptTrace
from telemetry.process_metrics import ProcessMetrics

_OUTPUT = (Vectors, Scores, Image)


class AttemptMeter:
    """Counts one attempt; `on_event` gets every event before it is sent."""

    __slots__ = (
        "_began", "_gaps", "_labels", "_last", "_metrics", "_now", "_record", "_terminal", "_trace",
    )  # fmt: skip

    def __init__(
        self,
        metrics: ProcessMetrics,
        record: JobRecord,
        now: Callable[[], float],
        trace: AttemptTrace | None = None,
    ) -> None:
        """Count the start of an attempt; `now` is the unix time by Redis's clock.

        `trace` gets what is counted here.
        """
        self._trace = trace
        self._metrics = metrics
        self._record = record
        self._now = now
        self._labels = (record.queue, metrics.models.label(record.model))
        self._began = monotonic()
        self._last: float | None = None
        self._gaps = metrics.series.bins("inter_token_seconds", *self._labels)
        self._terminal: Done | Failed | None = None
        metrics.series.count("attempts_total", record.queue)
        if record.attempt == 1 and record.started_at is not None:
            self._count_wait(record.started_at - record.ready_at)

    def _count_wait(self, wait_s: float) -> None:
        record, series = self._record, self._metrics.series
        wait_s = max(0.0, wait_s)
        series.bins("queue_wait_seconds", record.queue, record.priority).observe(wait_s)
        tenant = self._metrics.tenants.label(record.tenant)
        series.bins("tenant_queue_wait_seconds", tenant).observe(wait_s)

    def on_event(self, event: Event) -> None:
        """Count an event: first output, gaps between fragments, and how the attempt ended."""
        if self._trace is not None:
            self._trace.on_event(event)
        if isinstance(event, Delta):
            if event.content or event.has_words:
                now = monotonic()
                if self._last is None:
                    self._count_first(now)
                else:
                    self._gaps.observe(now - self._last)
                self._last = now
        elif isinstance(event, _OUTPUT):
            if self._last is None:
                self._last = monotonic()
                self._count_first(self._last)
        elif isinstance(event, Done | Failed):
            self._terminal = event

    def _count_first(self, now: float) -> None:
        series = self._metrics.series
        series.bins("backend_first_token_seconds", *self._labels).observe(now - self._began)
        if self._record.attempt == 1:
            since_enqueue_s = max(0.0, self._now() - self._record.ready_at)
            series.bins("time_to_first_token_seconds", *self._labels).observe(since_enqueue_s)

    def ended(self) -> None:
        """Count the end of the job, whose terminal event is in the log."""
        record, terminal = self._record, self._terminal
        outcome = "failed" if isinstance(terminal, Failed) else "done"
        self._metrics.on_ended(record.queue, record.priority, record.tenant, outcome)
        series, now = self._metrics.series, self._now()
        if record.deadline_at is not None:
            slack_s = max(0.0, record.deadline_at - now)
            series.bins("deadline_slack_seconds", record.queue).observe(slack_s)
        if isinstance(terminal, Done):
            duration_s = max(0.0, now - record.ready_at)
            series.bins("job_duration_seconds", record.kind, record.queue).observe(duration_s)
            if terminal.usage is not None:
                self._count_tokens(terminal.usage)

    def _count_tokens(self, usage: Usage) -> None:
        series = self._metrics.series
        tenant = self._metrics.tenants.label(self._record.tenant)
        if usage.cached_tokens:
            series.count("cached_tokens_total", *self._labels, by=usage.cached_tokens)
        for direction, tokens in (("in", usage.prompt_tokens), ("out", usage.completion_tokens)):
            if tokens:
                series.count("tokens_total", *self._labels, direction, by=tokens)
                series.count("tenant_tokens_total", tenant, direction, by=tokens)

    def backend_failed(self, code: str) -> None:
        """Count an attempt that the backend failed."""
        self._failed(code)
        self._metrics.series.count("backend_errors_total", backend_of(self._record.queue), code)

    def lost(self) -> None:
        """Count that another worker had the job by the time of this one's next write."""
        self._failed("lease_lost")
        self._metrics.series.count("leases_lost_total", self._record.queue)

    def handed_over(self, reason: str) -> None:
        """Count that the job went back to its queue."""
        self._failed(reason)
        self._metrics.on_handed_over(reason)

    def _failed(self, code: str) -> None:
        if self._trace is not None:
            self._trace.failed(code)
