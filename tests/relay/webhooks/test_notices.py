"""What receivers are told: names, ids and shapes of events, by how a job or batch ended."""

import json

import pytest

from contract.webhooks.webhook_models import EventType
from relay.webhooks.notices import Notice, event_of, types_of

MESSAGES = "/v1/messages"


def notice(**fields: object) -> Notice:
    whole = {"family": "job", "id": "a" * 32, "tenant": "t", "status": "done", "created_at": 1.0}
    return Notice.model_validate({**whole, **fields})


@pytest.mark.parametrize(
    ("fields", "types"),
    [
        ({}, ["job.done"]),
        ({"status": "failed"}, ["job.failed"]),
        ({"status": "cancelled"}, ["job.cancelled"]),
        ({"family": "response"}, ["job.done", "response.completed"]),
        (
            {"family": "response", "finish_reason": "length"},
            ["job.done", "response.incomplete"],
        ),
        (
            {"family": "response", "finish_reason": "content_filter"},
            ["job.done", "response.incomplete"],
        ),
        (
            {"family": "response", "finish_reason": "content_filter", "has_refused": True},
            ["job.done", "response.completed"],
        ),
        ({"family": "response", "status": "failed"}, ["job.failed", "response.failed"]),
        ({"family": "response", "status": "cancelled"}, ["job.cancelled", "response.cancelled"]),
        ({"family": "batch", "status": "expired"}, ["batch.expired"]),
    ],
)
def test_an_end_has_the_names_of_its_family(fields: dict[str, object], types: list[str]) -> None:
    assert list(types_of(notice(**fields))) == types


@pytest.mark.parametrize(
    ("fields", "type_", "subject"),
    [
        ({}, "job.done", "a" * 32),
        ({"family": "response"}, "response.completed", f"resp_{'a' * 32}"),
        ({"family": "batch", "id": "batch_1", "kind": "/v1/embeddings"}, "batch.failed", "batch_1"),
        (
            {"family": "batch", "id": "batch_1", "kind": "/v1/messages"},
            "batch.failed",
            "msgbatch_1",
        ),
    ],
)
def test_an_event_names_what_its_client_knows(
    fields: dict[str, object], type_: EventType, subject: str
) -> None:
    event = event_of(notice(**fields), type_, 1_796_000_000.25)
    told = json.loads(event.body)

    assert (event.subject, told["data"]["id"]) == (subject, subject)
    assert (told["id"], told["object"], told["type"]) == (event.id, "event", type_)
    assert (told["created_at"], told["timestamp"]) == (1_796_000_000, "2026-11-30T00:53:20.250Z")


def test_an_id_follows_from_the_end_and_differs_between_events() -> None:
    end = notice(family="response")
    ids = [event_of(end, type_, 1.0).id for type_ in types_of(end)]

    assert ids == [event_of(end, type_, 2.0).id for type_ in types_of(end)]
    assert len(set(ids)) == 2


def test_a_failure_says_why_in_bounded_words() -> None:
    failed = event_of(notice(status="failed", code="c", message="m" * 9999), "job.failed", 1.0)

    assert json.loads(failed.body)["data"]["error"] == {"code": "c", "message": "m" * 500}
