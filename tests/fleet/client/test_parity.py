"""The plain client can do what the asynchronous one can, with the same parameters, written once."""

import inspect
from io import BytesIO
from typing import Any

import pytest
from support.batches import echo, jsonl
from support.up import Up, wait_until

from fleet import AsyncClient, AsyncJob, Client, Job
from fleet.client.batches import AsyncBatches, BatchView
from fleet.client.sync_client import Batches, Webhooks
from fleet.client.webhooks import AsyncWebhooks

PAIRS: tuple[tuple[type, type], ...] = (
    (AsyncClient, Client), (AsyncJob, Job), (AsyncBatches, Batches), (AsyncWebhooks, Webhooks),
)  # fmt: skip
OF_A_LOOP = {"aclose": "close", "many": None}
"""What is called otherwise for a thread, or is a part that only a loop has a use for."""
BY_HAND = {"batches", "job", "map", "webhooks"}
"""They hand out handles, or take from the caller's own thread."""


def public(kind: type) -> dict[str, Any]:
    members = inspect.getmembers(kind)
    return {name: each for name, each in members if not name.startswith("_")}


def parameters(method: Any) -> list[tuple[str, Any, Any, str]]:
    found = inspect.signature(method).parameters.values()
    return [(each.name, each.kind, each.default, str(each.annotation)) for each in found]


@pytest.mark.parametrize(("there", "here"), PAIRS)
def test_both_have_the_same_public_names(there: type, here: type) -> None:
    expected = {OF_A_LOOP.get(name, name) for name in public(there)} - {None}
    attributes = {"id", "accepted"} if here is Job else set()

    assert set(public(here)) == expected | attributes


@pytest.mark.parametrize(("there", "here"), PAIRS)
def test_every_method_takes_the_same_parameters(there: type, here: type) -> None:
    for name, method in public(here).items():
        if inspect.isfunction(method) and name != "close":
            assert (name, parameters(method)) == (name, parameters(public(there)[name]))
    if here is Client:
        assert parameters(Client.__init__) == parameters(AsyncClient.__init__)


@pytest.mark.parametrize(("there", "here"), PAIRS)
def test_every_method_is_its_siblings(there: type, here: type) -> None:
    for name, method in public(here).items():
        if inspect.isfunction(method) and name not in {*BY_HAND, "close"}:
            assert inspect.unwrap(method) is public(there)[name]
            assert method.__doc__


def test_a_batch_runs_through_the_plain_client(up: Up) -> None:
    rows = [echo(number) for number in range(3)]
    with Client(up.url) as fleet:
        begun = fleet.batches.submit(BytesIO(jsonl(rows)), endpoint="/v1/chat/completions")

        def has_ended() -> BatchView | None:
            now = fleet.batches.look(begun.id)
            return now if now.has_ended else None

        batch: BatchView = wait_until(has_ended)
        into = BytesIO()
        size_bytes = sum(fleet.batches.fetch(batch.output_file_id or "", into))

        assert batch.request_counts.completed == 3
        assert into.getvalue().count(b"\n") == 3
        assert size_bytes == len(into.getvalue())
        assert begun.id in [each.id for each in fleet.batches.newest()]
