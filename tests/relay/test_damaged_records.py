"""A damaged record of a job is passed over and named; the others are listed and run.

Subjects: relay/records.py, relay/connection.py, relay/queue.py, relay/reconciler.py.
"""

import logging
from collections.abc import Sequence

import pytest
from support.relay import QUEUE, Relay, relay_on

from contract import redis_keys
from contract.errors import FleetError, NewerVersion
from contract.tenants import Tenant
from relay import reconciler

ADMIN = Tenant(name="boss", admin=True)
DAMAGE: dict[str, Sequence[Sequence[str | bytes]]] = {
    "text": [("DEL",), ("SET", "garbage")],
    "list": [("DEL",), ("RPUSH", "garbage")],
    "no UTF-8": [("HSET", "model", b"\xff\xfe")],
    "no time": [("HSET", "created_at", "soon")],
    "no number": [("HSET", "attempt", "many")],
    "no queue": [("HDEL", "queue")],
}


METADATA: Sequence[Sequence[str | bytes]] = [("HSET", "metadata", "{")]


async def damaged_and_two_more(relay: Relay, how: str) -> tuple[str, set[str]]:
    first, *rest = [await relay.enqueue() for _ in range(3)]
    for name, *words in DAMAGE[how]:
        await relay.connection.command(name, redis_keys.record(first), *words)
    return first, set(rest)


@pytest.mark.parametrize("how", DAMAGE)
async def test_the_other_jobs_are_listed_and_started(
    redis_url: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "relay.connection")
    async with relay_on(redis_url) as relay:
        damaged, others = await damaged_and_two_more(relay, how)

        for _ in range(2):
            page = await relay.records.page(visible_to=ADMIN)
            assert {job.id for job in page.jobs} == others
        named = [each.getMessage() for each in caplog.records if damaged in each.getMessage()]
        started = [await relay.start_next(QUEUE, "w1") for _ in range(4)]

    assert len(named) == 1
    assert {job.record.id for job in started if job is not None} == others


@pytest.mark.parametrize("how", [*DAMAGE, "metadata"])
async def test_a_record_that_is_asked_for_is_named_once(
    redis_url: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "relay.connection")
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue()
        for name, *words in (*DAMAGE.get(how, ()), *METADATA[how != "metadata" :]):
            await relay.connection.command(name, redis_keys.record(job), *words)

        for _ in range(3):
            with pytest.raises(FleetError):
                await relay.records.get_for_tenant(job, ADMIN)
    named = [each.getMessage() for each in caplog.records if job in each.getMessage()]

    assert len(named) == 1
    assert redis_keys.record(job) in named[0]


@pytest.mark.parametrize("request_", [b"{", b"garbage", b'{"kind":"nonsense"}', b"\xff"])
async def test_a_request_that_cannot_be_read_is_named_once(
    redis_url: str, request_: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "relay.connection")
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue()
        await relay.connection.command("HSET", redis_keys.record(job), "request", request_)

        for _ in range(3):
            with pytest.raises(NewerVersion):
                await relay.records.request(job)
    named = [each.getMessage() for each in caplog.records if job in each.getMessage()]

    assert len(named) == 1


async def test_a_job_with_damaged_metadata_does_not_run_but_is_listed(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        damaged, good = await relay.enqueue(), await relay.enqueue()
        await relay.connection.command("HSET", redis_keys.record(damaged), "metadata", "{")

        page = await relay.records.page(visible_to=ADMIN)
        started = [await relay.start_next(QUEUE, "w1") for _ in range(2)]

    assert {job.id for job in page.jobs} == {damaged, good}
    assert [job.record.id for job in started if job is not None] == [good]


@pytest.mark.parametrize("how", DAMAGE)
async def test_the_maintainer_goes_on(
    redis_url: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that its queue has lost is restored beside one that cannot be read."""
    monkeypatch.setattr(reconciler, "_SETTLED_S", -60)
    async with relay_on(redis_url) as relay:
        damaged, others = await damaged_and_two_more(relay, how)
        for id in (damaged, *others):
            await relay.connection.command("HDEL", redis_keys.facts(QUEUE), id)
            await relay.connection.command("ZREM", redis_keys.backlog(QUEUE), id)

        assert await relay.reconciler.reconcile() >= len(others)
