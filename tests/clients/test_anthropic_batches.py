"""Message batches through the `anthropic` client, current and unmodified."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import pytest
from anthropic import Anthropic
from anthropic.types.messages import MessageBatch
from support.fleet import Fleet, fleet
from support.up import wait_until

pytestmark = pytest.mark.client("anthropic")

HEADERS = {"anthropic-version": "2023-06-01"}
SLOW = "scripted-story:chunks=400,rate=20"


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder: Path = tmp_path_factory.mktemp("message-batches")
    with fleet(folder, "scripted", data_dir=folder / "data", batch_max_rows=50) as running:
        yield running


@pytest.fixture
def ask(at: Fleet) -> Iterator[Anthropic]:
    with Anthropic(base_url=at.url, api_key="unused", max_retries=0) as client:
        yield client


def asked(custom_id: str, text: str, **params: Any) -> Any:
    turn = {"role": "user", "content": text}
    whole = {"model": "scripted-echo", "max_tokens": 20, "messages": [turn], **params}
    return {"custom_id": custom_id, "params": whole}


def ended(ask: Anthropic, batch: MessageBatch) -> MessageBatch:
    give_up_at = time.monotonic() + 30
    while batch.processing_status != "ended":
        assert time.monotonic() < give_up_at, batch
        time.sleep(0.05)
        batch = ask.messages.batches.retrieve(batch.id)
    return batch


@pytest.mark.feature("batches")
def test_a_batch_is_run_and_its_results_are_read(ask: Anthropic, at: Fleet) -> None:
    rows = [asked(f"row-{n}", f"word {n}") for n in range(20)]
    rows += [asked("bad", "x", max_tokens=-1), asked("lost", "x", thread={"type": "create"})]
    rows.append(asked("effort", "a b", output_config={"effort": "high"}))
    batch = ask.messages.batches.create(requests=rows)

    assert batch.id.startswith("msgbatch_")
    assert (batch.processing_status, batch.results_url) == ("in_progress", None)
    assert batch.request_counts.processing == 23
    batch = ended(ask, batch)
    results = {each.custom_id: each.result for each in ask.messages.batches.results(batch.id)}

    counts = batch.request_counts
    assert (counts.succeeded, counts.errored, counts.processing) == (21, 2, 0)
    assert batch.results_url == f"{at.url}/v1/messages/batches/{batch.id}/results"
    for n in range(20):
        message: Any = results[f"row-{n}"]
        assert message.message.content[0].text == f"word {n}"
        assert message.message.usage.service_tier == "batch"
    wrong: Any = results["bad"]
    assert (wrong.type, wrong.error.error.type) == ("errored", "invalid_request_error")
    assert "max_tokens" in wrong.error.error.message
    assert results["lost"].type == "errored"


@pytest.mark.feature("batches", "cancel")
def test_a_cancelled_batch_keeps_its_results_and_tells_the_others(
    ask: Anthropic, at: Fleet
) -> None:
    rows = [asked("quick", "hello"), *(asked(f"slow-{n}", "x", model=SLOW, max_tokens=400)
            for n in range(4))]  # fmt: skip
    batch = ask.messages.batches.create(requests=rows)
    own = batch.id.replace("msgbatch_", "batch_")
    url = f"{at.url}/v1/batches/{own}"
    assert wait_until(lambda: httpx.get(url).json()["request_counts"]["completed"] == 1)
    batch = ask.messages.batches.cancel(batch.id)

    assert batch.processing_status in {"canceling", "ended"}
    assert batch.cancel_initiated_at
    batch = ended(ask, batch)
    kinds = [each.result.type for each in ask.messages.batches.results(batch.id)]
    counts = batch.request_counts
    assert sorted(kinds) == [*["canceled"] * 4, "succeeded"]
    assert (counts.succeeded, counts.canceled, counts.errored) == (1, 4, 0)


@pytest.mark.feature("batches")
def test_batches_are_listed_by_pages_apart_from_others(ask: Anthropic, at: Fleet) -> None:
    made = [ask.messages.batches.create(requests=[asked("a", "x")]).id for _ in range(3)]
    first = ask.messages.batches.list(limit=2)
    before = ask.messages.batches.list(limit=2, before_id=made[0])
    every = [batch.id for batch in ask.messages.batches.list(limit=2)]
    there = httpx.get(f"{at.url}/v1/batches").json()["data"]

    assert [batch.id for batch in first.data] == [made[2], made[1]]
    assert first.has_more
    assert every[:3] == made[::-1]
    assert [batch.id for batch in before.data] == [made[2], made[1]]
    assert {each["endpoint"] for each in there} == {"/v1/messages"}


@pytest.mark.feature("batches")
def test_a_batch_that_has_ended_is_deleted(ask: Anthropic) -> None:
    batch = ended(ask, ask.messages.batches.create(requests=[asked("a", "x")]))
    running = ask.messages.batches.create(requests=[asked("a", "x", model=SLOW, max_tokens=99)])

    assert ask.messages.batches.delete(batch.id).type == "message_batch_deleted"
    with pytest.raises(anthropic.NotFoundError):
        ask.messages.batches.retrieve(batch.id)
    with pytest.raises(anthropic.BadRequestError, match="has not ended"):
        ask.messages.batches.delete(running.id)
    with pytest.raises(anthropic.NotFoundError):
        ask.messages.batches.retrieve("msgbatch_" + "0" * 32)
    ask.messages.batches.cancel(running.id)


@pytest.mark.feature("batches")
def test_a_key_makes_the_same_requests_one_batch(ask: Anthropic) -> None:
    rows, keyed = [asked("a", "x")], {"Idempotency-Key": "batch-1"}

    first = ask.messages.batches.create(requests=rows, extra_headers=keyed)
    again = ask.messages.batches.create(requests=rows, extra_headers=keyed)
    with pytest.raises(anthropic.ConflictError):
        ask.messages.batches.create(requests=[asked("a", "y")], extra_headers=keyed)

    assert first.id == again.id


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "requests: required"),
        ({"requests": []}, "requests: required"),
        ({"requests": [asked("a b", "x")]}, "requests.0.custom_id"),
        ({"requests": [asked("a", "x"), asked("a", "y")]}, "requests.1.custom_id"),
        ({"requests": [{"custom_id": "a"}]}, "requests.0.params"),
        ({"requests": [asked(f"r{n}", "x") for n in range(51)]}, "at most 50"),
    ],
)
@pytest.mark.feature("batches", "errors")
def test_an_invalid_batch_is_refused_at_once(at: Fleet, body: Any, field: str) -> None:
    answer = httpx.post(f"{at.url}/v1/messages/batches", json=body, headers=HEADERS)
    plain = httpx.post(f"{at.url}/v1/messages/batches", content=json.dumps(body))

    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    assert field in answer.json()["error"]["message"]
    assert plain.status_code == 400


def test_what_has_no_effect_is_named(at: Fleet, ask: Anthropic) -> None:
    row = {**asked("a", "x", container="c"), "note": 1}
    body = {"requests": [row], "extra": 1}
    answer = httpx.post(f"{at.url}/v1/messages/batches", json=body, headers=HEADERS)
    batch = ended(ask, ask.messages.batches.retrieve(answer.json()["id"]))
    (line,) = httpx.get(batch.results_url or "", headers=HEADERS).text.splitlines()

    assert answer.headers["x-fleet-ignored"] == "extra, requests[].note"
    assert json.loads(line)["result"]["x_fleet_ignored"] == "container"
