"""What a worker counts of an attempt, by the events that it appends."""

from contract.errors import BackendBusy
from contract.events import Delta, Done, Event, Failed, Phase, Usage
from contract.jobs import JobRecord
from telemetry.attempt_meter import AttemptMeter
from telemetry.process_metrics import ProcessMetrics
from telemetry.settings import MetricsSettings

NOW = 1010.0


def record(**fields: object) -> JobRecord:
    whole = {
        "id": "a" * 32, "v": 1, "kind": "chat", "status": "running", "queue": "box.chat",
        "backend": "box", "model": "m", "tenant": "t", "priority": "batch", "attempt": 1,
        "max_attempts": 3, "created_at": 1000.0, "started_at": 1002.0, "deadline_at": 1040.0,
    }  # fmt: skip
    return JobRecord.model_validate({**whole, **fields})


def counted(*events: Event, **fields: object) -> dict[str, float]:
    """What the events of one attempt count, by name and labels; a histogram by its sum."""
    metrics = ProcessMetrics("worker", MetricsSettings())
    meter = AttemptMeter(metrics, record(**fields), lambda: NOW)
    for event in events:
        meter.on_event(event)
    meter.ended()
    return {
        " ".join((field[0], *field[2:])): value
        for field, value in metrics.series.shared()
        if field[1] in ("", "sum")
    }


def test_a_chat_counts_its_waits_tokens_and_end() -> None:
    usage = Usage(prompt_tokens=7, completion_tokens=2, cached_tokens=5)
    found = counted(Phase(phase="loading"), Delta(content="a"), Delta(content="b"),
                    Done(usage=usage))  # fmt: skip

    assert found["attempts_total box.chat"] == 1
    assert found["queue_wait_seconds box.chat batch"] == 2.0
    assert found["tenant_queue_wait_seconds t"] == 2.0
    assert found["time_to_first_token_seconds box.chat m"] == 10.0
    assert found["tokens_total box.chat m in"] == 7
    assert found["cached_tokens_total box.chat m"] == 5
    assert found["tenant_tokens_total t out"] == 2
    assert found["jobs_total chat box.chat done batch"] == 1
    assert found["tenant_jobs_total t done"] == 1
    assert found["deadline_slack_seconds box.chat"] == 30.0
    assert found["job_duration_seconds chat box.chat"] == 10.0


def test_a_fragment_without_words_is_no_output() -> None:
    found = counted(Delta(usage=Usage(prompt_tokens=1)), Done())

    assert "time_to_first_token_seconds box.chat m" not in found
    assert found["inter_token_seconds box.chat m"] == 0.0


def test_a_later_attempt_counts_no_wait_and_no_second_first_token() -> None:
    found = counted(Delta(content="a"), Failed(code="x", message=""), attempt=2)

    assert found["jobs_total chat box.chat failed batch"] == 1
    assert not [name for name in found if name.startswith(("queue_wait", "time_to_first"))]
    assert "backend_first_token_seconds box.chat m" in found


def test_a_deadline_that_has_passed_has_no_slack() -> None:
    assert counted(Done(), deadline_at=1005.0)["deadline_slack_seconds box.chat"] == 0.0


def test_errors_of_a_backend_are_counted_by_their_code() -> None:
    metrics = ProcessMetrics("worker", MetricsSettings())
    AttemptMeter(metrics, record(), lambda: NOW).backend_failed(BackendBusy.code)

    assert dict(metrics.series.shared())["backend_errors_total", "", "box", "backend_busy"] == 1
