"""The trace of the current task: what is accepted of a client, and that it ends with the task.

Subjects: telemetry/trace_context.py, telemetry/tracing.py, telemetry/genai.py.
"""

import subprocess
import sys

import pytest

from telemetry.genai import NAMES, attributes
from telemetry.trace_context import context_of, current_trace, working_for
from telemetry.tracing import Tracing, tracing_of

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
GOOD = f"00-{TRACE_ID}-00f067aa0ba902b7-01"


def test_a_context_of_w3cs_form_is_accepted() -> None:
    found = context_of(GOOD, "vendor=1")

    assert found is not None
    assert (found.traceparent, found.tracestate, found.trace_id) == (GOOD, "vendor=1", TRACE_ID)
    assert context_of(f"cc{GOOD[2:]}-more") is not None


@pytest.mark.parametrize(
    "text",
    ["", "x", GOOD.upper(), f"ff{GOOD[2:]}", f"{GOOD}-more", f"00-{'0' * 32}-00f067aa0ba902b7-01",
     f"00-{TRACE_ID}-{'0' * 16}-01", f"{GOOD}\n"],
)  # fmt: skip
def test_any_other_is_none(text: str) -> None:
    assert context_of(text) is None


@pytest.mark.parametrize("state", ["", "x" * 513, "a=\n", "a=\u00e9"])
def test_a_state_that_cannot_be_passed_on_is_left_out(state: str) -> None:
    found = context_of(GOOD, state)

    assert found is not None
    assert found.tracestate is None


def test_work_for_a_trace_ends() -> None:
    trace = context_of(GOOD)
    with working_for(trace):
        assert current_trace() == trace
    assert current_trace() is None


def test_without_spans_a_submission_works_for_its_parent() -> None:
    with Tracing().submitting("chat", context_of(GOOD)):
        assert current_trace() == context_of(GOOD)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
    ],
    ids=str,
)
def test_spans_are_made_only_where_they_can_be_sent(environ: dict[str, str]) -> None:
    assert not tracing_of("shim", "latest", environ).is_on


def test_without_an_endpoint_nothing_that_makes_spans_is_imported() -> None:
    # redis-py imports OpenTelemetry's metrics by itself, where they are installed.
    code = (
        "import sys, api_shim.app, workers.lifetime\n"
        "from telemetry.tracing import tracing_of\n"
        "tracing_of('shim', 'latest', {})\n"
        "makers = ('opentelemetry.exporter', 'telemetry.otel')\n"
        "print([name for name in sys.modules if name.startswith(makers)])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert told.stdout == "[]\n"


def test_the_conventions_are_one_table() -> None:
    facts = {"operation": "chat", "provider": "ollama", "model": None}

    assert attributes("latest", facts) == {  # type: ignore[arg-type]
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "ollama",
    }  # fmt: skip
    assert "gen_ai.system" in attributes("1.36", facts)  # type: ignore[arg-type]
    assert attributes("off", facts) == {}  # type: ignore[arg-type]
    assert set(NAMES["latest"]) == set(NAMES["1.36"])
