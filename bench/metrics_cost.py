"""What metrics cost a job: microseconds of every call that counts something, and their sum.

    python -m bench.metrics_cost

A chat of 16 chunks, as in bench/job_cost.py. Beside each of our counters, prometheus-client's own.
"""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram

from contract.events import Delta, Done, Usage
from contract.jobs import JobRecord
from telemetry.attempt_meter import AttemptMeter
from telemetry.process_metrics import ProcessMetrics
from telemetry.settings import MetricsSettings
from telemetry.trace_context import context_of, working_for

CHUNKS = 16
ROUND_TRIPS = 14
"""Calls of Redis a job, in shim and worker."""
WRITES = 3
"""Script calls of the publisher in a job."""
RUNS, TIMES = 7, 2000
RECORD = JobRecord(
    id="a" * 32, v=1, kind="chat", status="running", queue="box.chat", backend="box", model="m",
    tenant="t", priority="standard", attempt=1, max_attempts=3, created_at=1000.0,
    started_at=1000.1, deadline_at=1600.0,
)  # fmt: skip
DELTA, DONE = Delta(content="word "), Done(usage=Usage(prompt_tokens=9, completion_tokens=16))


def microseconds(work: Callable[[], Any]) -> float:
    """The median of several runs, a call."""
    found = []
    for _ in range(RUNS):
        began = time.process_time()
        for _ in range(TIMES):
            work()
        found.append((time.process_time() - began) / TIMES * 1e6)
    return median(found)


def attempt(metrics: ProcessMetrics) -> None:
    """What a worker counts of one chat."""
    meter = AttemptMeter(metrics, RECORD, lambda: 1001.0)
    for _ in range(CHUNKS):
        meter.on_event(DELTA)
    meter.on_event(DONE)
    meter.ended()


def request(metrics: ProcessMetrics) -> None:
    """What a shim counts of one request."""
    with working_for(None):
        context_of(None)
        metrics.on_enqueued("box.chat", "standard")
        metrics.series.count("http_requests_total", "POST", "/v1/chat/completions", "200")
        bins = metrics.series.bins("http_request_duration_seconds", "POST", "/v1/chat/completions")
        bins.observe(0.01)


def main() -> None:
    """Print the cost of each call and of a job."""
    metrics = ProcessMetrics("worker", MetricsSettings())
    registry = CollectorRegistry()
    counter = Counter("c_total", "c", ["queue", "model"], registry=registry)
    histogram = Histogram("h", "h", ["queue", "model"], registry=registry)
    round_trip = microseconds(lambda: metrics.on_round_trip(0.0004))
    write = microseconds(lambda: metrics.on_published(8))
    whole, shim = microseconds(lambda: attempt(metrics)), microseconds(lambda: request(metrics))
    rows = {
        f"attempt of {CHUNKS} chunks": whole,
        "request": shim,
        f"round trips ({ROUND_TRIPS})": ROUND_TRIPS * round_trip,
        f"writes of the publisher ({WRITES})": WRITES * write,
        "a job": whole + shim + ROUND_TRIPS * round_trip + WRITES * write,
        "one counter of ours": microseconds(
            lambda: metrics.series.count("tokens_total", "box.chat", "m", "in")
        ),
        "one counter of prometheus-client": microseconds(
            lambda: counter.labels("box.chat", "m").inc()
        ),
        "one histogram of ours": round_trip,
        "one histogram of prometheus-client": microseconds(
            lambda: histogram.labels("box.chat", "m").observe(0.0004)
        ),
    }
    for name, cost_us in rows.items():
        print(f"{name:<40} {cost_us:8.2f} us")


if __name__ == "__main__":
    main()
