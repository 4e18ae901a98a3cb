"""Batches of several tenants: none sees another's, none waits behind another's many."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import openai
import pytest
from openai import OpenAI
from support.batches import begun, echo, ended, everything, lines, row, uploaded, when
from support.keys import Keyed, keyed
from support.processes import worker
from support.redis_server import RedisServer

LONG = "scripted-story:chunks=3,rate=6"


@pytest.fixture
def fleet(own_redis: RedisServer, tmp_path: Path) -> Iterator[Keyed]:
    settings = {
        "data_dir": tmp_path / "data",
        "batches_at_once": 2,
        "batch_window": 8,
        "batch_missing_s": 1,
    }
    env = {"LLM_SCRIPTED": "scripted://?slots=8"}
    with keyed(own_redis.url, **settings) as shim, worker(own_redis.url, tmp_path, **env):
        yield shim


@pytest.fixture
def callers(fleet: Keyed) -> Iterator[tuple[OpenAI, OpenAI]]:
    """Clients of two tenants, of which neither is an admin."""
    with ExitStack() as stack:
        made = [
            stack.enter_context(OpenAI(base_url=f"{fleet.url}/v1", api_key=key))
            for key in (fleet.issue(name)["key"] for name in ("ann", "bob"))
        ]
        yield made[0], made[1]


def test_no_tenant_sees_anothers_files_and_batches(callers: tuple[OpenAI, OpenAI]) -> None:
    ann, bob = callers
    file_id = uploaded(ann, [echo(1)])
    batch = begun(ann, [echo(1)])
    asked = [
        lambda: bob.files.retrieve(file_id),
        lambda: bob.files.content(file_id),
        lambda: bob.files.delete(file_id),
        lambda: bob.batches.retrieve(batch.id),
        lambda: bob.batches.cancel(batch.id),
        lambda: bob.batches.create(
            input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h"
        ),
    ]
    for ask in asked:
        with pytest.raises(openai.NotFoundError):
            ask()

    assert (bob.files.list().data, bob.batches.list().data) == ([], [])
    assert ended(ann, batch).status == "completed"


def test_each_line_of_a_batch_is_under_the_rights_of_its_key(fleet: Keyed) -> None:
    rights = {"permissions": ["files", "batches", "chat"], "models": ["scripted-echo*"]}
    with OpenAI(base_url=f"{fleet.url}/v1", api_key=fleet.issue("cat", **rights)["key"]) as cat:
        last = ended(cat, begun(cat, [echo(1), echo(2, LONG)]))
        answered = lines(cat, last.output_file_id)
        (refused,) = lines(cat, last.error_file_id)
        with pytest.raises(openai.PermissionDeniedError, match="permission embed"):
            cat.batches.create(
                input_file_id=uploaded(cat, [echo(1)]),
                endpoint="/v1/embeddings",
                completion_window="24h",
            )

    assert [each["custom_id"] for each in answered] == [echo(1)["custom_id"]]
    assert refused["custom_id"] == echo(2)["custom_id"]
    assert "may not use scripted-story" in str(refused)


def test_a_tenants_many_batches_do_not_stand_before_anothers_one(
    callers: tuple[OpenAI, OpenAI],
) -> None:
    ann, bob = callers
    many = [begun(ann, [echo(n, LONG) for n in range(80)]) for _ in range(4)]
    when(ann, many[0], completed=4)
    began_at = time.monotonic()
    done = ended(bob, begun(bob, [echo(n) for n in range(10)]))
    took_s = time.monotonic() - began_at

    assert done.status == "completed"
    assert took_s < 15
    assert ann.batches.retrieve(many[0].id).status == "in_progress"
    assert {ended(ann, batch, 90).status for batch in many} == {"completed"}
    assert {len(everything(ann, ann.batches.retrieve(batch.id))) for batch in many} == {80}


def test_batches_of_one_tenant_share_its_window(callers: tuple[OpenAI, OpenAI]) -> None:
    ann, _ = callers
    long = begun(ann, [echo(n, LONG) for n in range(100)])
    when(ann, long, completed=4)
    short = begun(ann, [echo(n, LONG) for n in range(16)])
    ended(ann, short)
    counts = ann.batches.retrieve(long.id).request_counts

    assert counts is not None
    assert counts.completed < 70


def test_a_model_of_no_backend_fails_its_rows_after_a_while(
    callers: tuple[OpenAI, OpenAI],
) -> None:
    ann, _ = callers
    messages = [{"role": "user", "content": "hello"}]
    batch = begun(ann, [row("a", model="nobody-has-it", messages=messages), echo(1)])
    when(ann, batch, completed=1)
    done = ended(ann, batch, 60)
    (line,) = ann.files.content(str(done.error_file_id)).text.splitlines()

    assert done.status == "completed"
    assert '"model_not_found"' in line
    assert '"status_code":404' in line
