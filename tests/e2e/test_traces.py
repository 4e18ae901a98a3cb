"""Traces of a running fleet, as a collector receives them: one trace from caller to backend."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import httpx
import pytest
from support.collector import Collector, SeenSpan, collecting
from support.processes import worker
from support.redis_server import RedisServer
from support.relay import relay_on
from support.shim import serving

WITHIN_S = 30.0
PARENT = "00f067aa0ba902b7"
SECRET = "a-prompt-that-no-span-may-hold"


class Traced(NamedTuple):
    shim: str
    collector: Collector
    worker_log: Path

    def post(
        self, path: str, headers: dict[str, str] | None = None, **body: object
    ) -> httpx.Response:
        answer = httpx.post(self.shim + path, json=body, headers=headers)
        answer.raise_for_status()
        return answer

    def of_trace(self, trace_id: str, *names: str) -> dict[str, SeenSpan]:
        """The spans of a trace by name, once those of these names have come."""

        def found() -> dict[str, SeenSpan]:
            return {span.name: span for span in self.collector.spans if span.trace_id == trace_id}

        until(lambda: set(names) <= set(found()), lambda: f"{set(names)} in {set(found())}")
        return found()


def until(ask: Callable[[], bool], told: Callable[[], str]) -> None:
    give_up_at = time.monotonic() + WITHIN_S
    while not ask():
        assert time.monotonic() < give_up_at, told()
        time.sleep(0.1)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    folder = tmp_path_factory.mktemp("traces")
    with collecting() as collector, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        patch.setenv("FLEET_LOG_FORMAT", "json")
        redis = RedisServer(folder)
        try:
            with (
                serving(redis.url, data_dir=folder / "data") as shim,
                worker(redis.url, folder) as process,
            ):
                until(lambda: is_ready(shim), process.text)
                yield Traced(shim, collector, process.log)
        finally:
            redis.stop()


def caller() -> tuple[str, str]:
    """A new trace of a caller: its id, and what the caller sends."""
    trace = uuid4().hex
    return trace, f"00-{trace}-{PARENT}-01"


def is_ready(shim: str) -> bool:
    found = httpx.get(f"{shim}/api/v1/backends").json()["backends"]
    return [each["healthy"] for each in found] == [True]


def messages(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_a_chat_is_one_trace_from_its_caller_to_its_last_fragment(fleet: Traced) -> None:
    trace, sent = caller()
    headers = {"traceparent": sent, "tracestate": "vendor=1"}
    answer = fleet.post(
        "/v1/chat/completions", headers, model="scripted-story", messages=messages(SECRET)
    )
    names = ("POST /v1/chat/completions", "submit chat", "wait", "chat scripted-story",
             "first token", "stream")  # fmt: skip
    spans = fleet.of_trace(trace, *names)
    request, submit, wait, attempt, first, stream = (spans[name] for name in names)
    record = httpx.get(f"{fleet.shim}/api/v1/jobs/{answer.headers['x-fleet-job']}").json()

    assert request.parent_id == PARENT
    assert submit.parent_id == request.span_id
    assert {wait.parent_id, attempt.parent_id} == {submit.span_id}
    assert {first.parent_id, stream.parent_id} == {attempt.span_id}
    assert {request.service, submit.service} == {"llm-fleet-shim"}
    assert {wait.service, attempt.service} == {"llm-fleet-worker"}
    assert wait.started_s <= wait.ended_s <= attempt.started_s + 0.001
    assert first.ended_s <= stream.started_s + 0.001 <= stream.ended_s + 0.001
    assert record["traceparent"] == f"00-{trace}-{submit.span_id}-01"
    assert record["tracestate"] == "vendor=1"
    assert answer.headers["traceresponse"] == f"00-{trace}-{request.span_id}-01"
    assert not any(SECRET.encode() in body for body in fleet.collector.bodies)


def test_an_attempt_has_the_conventions_names_and_the_jobs(fleet: Traced) -> None:
    trace, sent = caller()
    fleet.post("/v1/chat/completions", {"traceparent": sent}, model="scripted-story",
               messages=messages("hi"))  # fmt: skip
    attempt = fleet.of_trace(trace, "chat scripted-story")["chat scripted-story"].attributes

    assert attempt["gen_ai.operation.name"] == "chat"
    assert attempt["gen_ai.provider.name"] == "scripted"
    assert attempt["gen_ai.request.model"] == "scripted-story"
    assert attempt["gen_ai.usage.output_tokens"] > 0
    assert attempt["gen_ai.response.finish_reasons"] == ["stop"]
    assert attempt["llmfleet.queue"] == "scripted.chat"
    assert attempt["llmfleet.job.attempt"] == 1
    assert attempt["llmfleet.outcome"] == "done"


def test_log_lines_name_the_trace(fleet: Traced) -> None:
    trace, sent = caller()
    fleet.post("/v1/chat/completions", {"traceparent": sent}, model="scripted-story",
               messages=messages("hi"))  # fmt: skip

    def lines() -> list[dict[str, object]]:
        text = [line for line in fleet.worker_log.read_text().splitlines() if line[:1] == "{"]
        return [line for each in text if (line := json.loads(each)).get("trace") == trace]

    until(lambda: bool(lines()), fleet.worker_log.read_text)
    assert {line["logger"] for line in lines()} >= {"workers.worker"}


def test_each_row_of_a_batch_is_below_the_batch(fleet: Traced) -> None:
    trace, sent = caller()
    row = {"method": "POST", "url": "/v1/chat/completions",
           "body": {"model": "scripted-story", "messages": messages("hi")}}  # fmt: skip
    text = "\n".join(json.dumps({"custom_id": str(n), **row}) for n in range(2))
    file = httpx.post(
        f"{fleet.shim}/v1/files", data={"purpose": "batch"}, files={"file": ("in.jsonl", text)}
    ).json()
    batch = fleet.post(
        "/v1/batches", {"traceparent": sent}, input_file_id=file["id"],
        endpoint="/v1/chat/completions", completion_window="24h",
    ).json()  # fmt: skip
    request = fleet.of_trace(trace, "POST /v1/batches")["POST /v1/batches"]

    def rows() -> list[SeenSpan]:
        return [s for s in fleet.collector.named("submit chat") if s.trace_id == trace]

    def attempts() -> list[SeenSpan]:
        found = fleet.collector.named("chat scripted-story")
        return [span for span in found if span.trace_id == trace]

    until(lambda: len(rows()) == 2, lambda: str(rows()))
    assert {span.parent_id for span in rows()} == {request.span_id}
    assert {span.attributes["llmfleet.batch.id"] for span in rows()} == {batch["id"]}
    until(
        lambda: len(attempts()) == 2,
        lambda: str(fleet.collector.spans),
    )
    assert {span.parent_id for span in attempts()} == {span.span_id for span in rows()}


async def test_a_trace_is_carried_where_no_span_is_made(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    _, sent = caller()
    body = {"backend": "box", "model": "m", "messages": messages("hi")}
    with serving(redis_url) as shim:
        answers = [
            httpx.post(
                f"{shim}/api/v1/jobs/chat?enqueue_anyway=true", json=body,
                headers={"traceparent": each},
            )
            for each in (sent, "00-nonsense")
        ]  # fmt: skip
        async with relay_on(redis_url) as relay:
            records = [await relay.records.get(answer.json()["id"]) for answer in answers]

    assert [record.traceparent for record in records] == [sent, None]
    assert "traceresponse" not in answers[0].headers
