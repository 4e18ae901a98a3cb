"""The table of all metrics: name, type, unit, labels, and whether of one process or of the fleet.

`llmfleet_process_<name>` is of the process that is scraped. `llmfleet_<name>` is of the whole
fleet, read from Redis, and the same at every shim. What is counted for both is in the table once.
"""

import sys
from typing import Final, Literal, NamedTuple

FLEET: Final = "llmfleet_"
PROCESS: Final = "llmfleet_process_"

Scope = Literal["fleet", "process", "both"]
_FEW_MS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5)
_LAG: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
_RESPONSE: Final = (
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
)
_GAP: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
_FIRST: Final = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0)
_WAIT: Final = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
_SLACK: Final = (0.0, 1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
_EVENTS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)


class Family(NamedTuple):
    """One metric, or the two that count the same for the process and for the fleet."""

    name: str
    """Without `llmfleet_` or `llmfleet_process_`."""
    type: Literal["counter", "gauge", "histogram"]
    scope: Scope
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    """Upper bounds of a histogram, without infinity."""

    @property
    def names(self) -> tuple[str, ...]:
        """The name or names under which it is served."""
        of_fleet = () if self.scope == "process" else (FLEET + self.name,)
        return of_fleet if self.scope == "fleet" else (*of_fleet, PROCESS + self.name)


def _counted(name: str, help: str, *labels: str) -> Family:
    return Family(name, "counter", "both", help, labels)


def _measured(name: str, help: str, buckets: tuple[float, ...], *labels: str) -> Family:
    return Family(name, "histogram", "both", help, labels, buckets)


def _state(name: str, help: str, *labels: str) -> Family:
    return Family(name, "gauge", "fleet", help, labels)


def _own(name: str, help: str, *labels: str) -> Family:
    return Family(name, "gauge", "process", help, labels)


COUNTED: Final = (
    _counted("jobs_enqueued_total", "Jobs that were put into a queue.", "kind", "queue", "class"),
    _counted(
        "enqueues_refused_total",
        "Enqueues that were refused, by what was full (scope): queue, tenant (its part of the "
        "queue), or a limit of the tenant: tokens_minute, tokens_day, spend_day, spend_month.",
        "queue", "scope",
    ),
    _counted("attempts_total", "Attempts that workers have started.", "queue"),
    _counted(
        "jobs_total",
        "Jobs that have ended: done, failed, cancelled, or dead (failed in every attempt).",
        "kind", "queue", "outcome", "class",
    ),
    _counted("tenant_jobs_total", "Jobs of a tenant that have ended.", "tenant", "outcome"),
    _counted(
        "jobs_removed_early_total",
        "Ended jobs of a tenant that were removed early, because Redis was nearly full.",
        "tenant",
    ),
    _counted(
        "keys_set_aside_total",
        "Shared keys in Redis that were of another type, and were set aside.",
        "key",
    ),
    _counted(
        "tokens_total",
        "Tokens as backends counted them: in (prompts) and out (answers).",
        "queue", "model", "direction",
    ),
    _counted(
        "cached_tokens_total",
        "Tokens of prompts that were in a backend's cache, where it tells; of tokens_total, in.",
        "queue", "model",
    ),
    _counted("tenant_tokens_total", "Tokens of a tenant's jobs.", "tenant", "direction"),
    _counted(
        "tenant_cost_total",
        "What a tenant's jobs cost by FLEET_PRICES, in FLEET_CURRENCY, as the ledger has it.",
        "tenant",
    ),
    _measured(
        "queue_wait_seconds",
        "From the enqueue of a job to the start of its first attempt.",
        _WAIT, "queue", "class",
    ),
    _measured(
        "tenant_queue_wait_seconds", "The same, by tenant.", _WAIT, "tenant",
    ),
    _measured(
        "time_to_first_token_seconds",
        "From the enqueue of a job to the first output of its first attempt.",
        _FIRST, "queue", "model",
    ),
    _measured(
        "backend_first_token_seconds",
        "From the start of an attempt to its first output: the backend's part, with loading.",
        _FIRST, "queue", "model",
    ),
    _measured(
        "inter_token_seconds",
        "Between two fragments of a chat, as the worker received them.",
        _GAP, "queue", "model",
    ),
    _measured(
        "job_duration_seconds", "From the enqueue of a job to its `done`.", _WAIT, "kind", "queue",
    ),
    _measured(
        "deadline_slack_seconds",
        "Time that jobs with a deadline had left when they ended; 0: it had passed.",
        _SLACK, "queue",
    ),
    _counted(
        "backend_errors_total",
        "Attempts that a backend failed, by the error's code (contract/errors.py).",
        "backend", "code",
    ),
    _counted(
        "hand_overs_total",
        "Jobs that went back to their queue: retry, drain (a worker stops), lease_expired, "
        "worker_died, restored (the queue had lost it), redis (it did not answer), log_torn; or to "
        "that of the next target of their alias: fallback.",
        "reason",
    ),
    _counted(
        "leases_lost_total",
        "Attempts whose job another worker had by the time of their next write.",
        "queue",
    ),
    _counted("webhook_tries_total", "Requests to receivers of webhooks.", "outcome"),
    _counted("batches_total", "Batches that have ended.", "status"),
    _counted("batch_rows_total", "Rows of batches that have a result.", "outcome"),
)  # fmt: skip
"""What processes count and send to the fleet's totals."""

STATE: Final = (
    _state("redis_up", "Whether Redis answered this scrape; without it the rest is missing."),
    _state("redis_memory_bytes", "Memory of Redis: used, and limit (0: none).", "of"),
    _state("workers", "Live workers.", "state"),
    _state("queue_workers", "Live workers that serve a queue.", "queue"),
    _state("queue_slots", "Jobs of a queue that its workers can run at once.", "queue"),
    _state("waiting_jobs", "Jobs that wait in a queue.", "queue"),
    _state("waiting_tokens", "Estimated tokens of the jobs that wait in a queue.", "queue"),
    _state(
        "delayed_jobs", "Jobs between two attempts, or scheduled for the next 90 seconds.", "queue"
    ),
    _state("scheduled_jobs", "Jobs that are due later, or wait for other jobs.", "queue"),
    _state("queue_paused", "1 while a queue is paused, or outside its run windows.", "queue"),
    _state("running_jobs", "Jobs that workers hold.", "queue"),
    _state("wanted_workers", "Workers that a queue's jobs fill, or that hold one.", "queue"),
    _state("oldest_job_seconds", "How long the oldest waiting job has waited; 0: none.", "queue"),
    _state("live_jobs", "Jobs that have not ended."),
    _state("dead_letters", "Jobs that ran out of attempts and are kept."),
    _state("unreadable_messages", "Messages that no worker could read and that are kept."),
    _state("batches", "Batches that have not ended."),
    _state("pulls", "Downloads of models, waiting or running.", "state"),
    _state("backend_up", "Whether a backend works for at least one worker.", "backend"),
    _state(
        "endpoint_circuit_open",
        "Whether the circuit of an address of a backend is open at any worker.",
        "backend", "endpoint",
    ),
    _state("model_circuits_open", "Models of a backend whose circuit is open.", "backend"),
    _state(
        "backend_models",
        "Models of a backend: warm (in memory), cold, or unknown.",
        "backend", "state",
    ),
)  # fmt: skip
"""What a shim reads of the whole fleet when it is scraped."""

OWN: Final = (
    _own("build_info", "Always 1; the labels are the version, and what the process is.",
         "version", "process", "python"),
    Family("loop_lag_seconds", "histogram", "process",
           "How late a timer of the event loop was.", (), _LAG),
    Family("redis_round_trip_seconds", "histogram", "process",
           "From a call of Redis to its reply.", (), _FEW_MS),
    _own("subscriptions", "Channels of Redis that the process is subscribed to."),
    Family("published_events", "histogram", "process",
           "Events of jobs that one script call wrote.", (), _EVENTS),
    _own("unpublished_events", "Events that wait for the publisher."),
    Family("http_requests_total", "counter", "process",
           "Requests by route template; `other`: no route.", ("method", "route", "status")),
    Family("http_request_duration_seconds", "histogram", "process",
           "From the head of a request to the end of its response.", ("method", "route"),
           _RESPONSE),
    _own("open_streams", "Calls that follow a job."),
    _own("connections", "Connections of clients, WebSockets among them."),
    Family("refused_connections_total", "counter", "process",
           "Connections that were closed or refused: head_too_large, head_too_slow, body_too_slow, "
           "malformed, pipelined, small_chunks, too_many_frames, reads_nothing, too_many, "
           "too_many_of_address, no_room.",
           ("reason",)),
    _own("slots", "Jobs of a queue that the worker can run at once.", "queue"),
    _own("running_jobs", "Jobs of a queue that the worker runs.", "queue"),
    _own("endpoint_circuit_open", "Whether the circuit of an address is open.", "endpoint"),
)  # fmt: skip
"""What only one process knows of itself."""

FAMILIES: Final = (*COUNTED, *STATE, *OWN)
CAPPED: Final = frozenset({"model", "tenant"})
"""Labels whose values are names that clients or backends invent."""


def reference() -> str:
    """The table as Markdown, for docs/metrics.md: `python -m telemetry.families`."""
    return _OPENING + "".join(
        f"\n## {title}\n\n{text}\n\n| name | type | labels | meaning |\n|---|---|---|---|\n"
        + "".join(map(_row, families))
        for title, text, families in (
            ("Of the fleet, and of one process", _BOTH, COUNTED),
            ("Of the fleet now", "Read from Redis when a shim is scraped.", STATE),
            ("Of one process", "What only the process knows of itself.", OWN),
        )
    )


_OPENING: Final = """\
# Metrics

Made by `python -m telemetry.families` from the table in `telemetry/families.py`; a test compares.
How to scrape them, and who may: [operating.md](operating.md).
"""
_BOTH: Final = (
    "Each has two names: `llmfleet_` and what the table says is the sum of all processes, the same "
    "at\nevery shim; `llmfleet_process_` and the same is of the process that is scraped."
)


def _row(family: Family) -> str:
    labels = ", ".join(f"`{label}`" for label in family.labels)
    name = family.name if family.scope == "both" else family.names[0]
    return f"| `{name}` | {family.type} | {labels} | {family.help} |\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
