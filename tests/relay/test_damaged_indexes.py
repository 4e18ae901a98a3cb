"""Garbage in what belongs to no single job is passed over and named: lists, maintenance go on.

Subjects: relay/reconciler.py, relay/records.py, relay/batches.py, relay/usage/ledger.py.
"""

import logging
from datetime import UTC, datetime

import pytest
from support.relay import Relay, relay_on

from contract import redis_keys
from contract.errors import DeadlineExceeded
from contract.tenants import DEFAULT_TENANT, Tenant
from relay.batches import BatchStore
from relay.files import Files
from relay.usage.ledger import Ledger, UsageQuery
from relay.usage.limits import TenantLimits

ADMIN = Tenant(name="boss", admin=True)
GARBAGE = b"\xff\xfe{garbage"
INDEXES = (
    redis_keys.DEADLINES, redis_keys.LIVE, redis_keys.RECENT, redis_keys.DEAD, redis_keys.FOLLOWED,
    redis_keys.IDEMPOTENCY, redis_keys.BLOCKED, redis_keys.PARENTS, redis_keys.RESERVING,
    redis_keys.MOVABLE, redis_keys.UNCOMPACTED,
)  # fmt: skip


async def one_is_late(relay: Relay) -> str:
    """A job that a pass of the maintainer must end."""
    late = await relay.enqueue(deadline_s=600)
    await relay.connection.command("ZADD", redis_keys.DEADLINES, 2, late)
    return late


@pytest.mark.parametrize("key", INDEXES)
async def test_the_maintainer_passes_over_garbage_in_an_index(redis_url: str, key: str) -> None:
    async with relay_on(redis_url, compact_after_s=0.001) as relay:
        late = await one_is_late(relay)
        await relay.connection.command("ZADD", key, 1, GARBAGE)
        await relay.reconciler.reconcile()
        await relay.compactor.compact_for(0.01)
        page = await relay.records.page(visible_to=ADMIN)
        frames = await relay.frames(late)

    assert [job.id for job in page.jobs] == [late]
    assert frames[-1].event.code == DeadlineExceeded.code


@pytest.mark.parametrize(
    "key",
    [
        redis_keys.IDEMPOTENCY, redis_keys.FOLLOWED, redis_keys.BLOCKED, redis_keys.RESERVING,
        redis_keys.MOVABLE, redis_keys.UNSETTLED, redis_keys.spending("default"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("words", [("SET", "garbage"), ("HSET", "a", "b")], ids=str)
async def test_a_step_over_a_key_of_another_type_does_not_stop_the_others(
    redis_url: str, key: str, words: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "relay.connection")
    async with relay_on(redis_url) as relay:
        await relay.enqueue()
        late = await one_is_late(relay)
        await relay.connection.command("DEL", key)
        await relay.connection.command(words[0], key, *words[1:])
        for _ in range(3):
            await relay.reconciler.reconcile()
        frames = await relay.frames(late)

    assert frames[-1].event.code == DeadlineExceeded.code
    assert len({each.getMessage() for each in caplog.records}) == len(caplog.records)


@pytest.mark.parametrize("words", [("SET", "garbage"), ("HSET", "id", "x", "json", "{")], ids=str)
async def test_lists_leave_out_what_they_cannot_read(
    redis_url: str, words: tuple[str, ...]
) -> None:
    async with relay_on(redis_url) as relay:
        say = relay.connection.command
        for index, record in (
            (redis_keys.batches("default"), redis_keys.batch("batch_" + "0" * 32)),
            (redis_keys.files("default"), redis_keys.file("file-" + "0" * 32)),
        ):
            await say(words[0], record, *words[1:])
            await say("ZADD", index, 1, record.rpartition(":")[2], 2, GARBAGE)
        batches = await BatchStore(relay.connection).page(DEFAULT_TENANT, limit=10)
        files = await Files(relay.connection).page(DEFAULT_TENANT, limit=10)

    assert (batches.batches, files.files) == ((), ())


async def test_usage_is_told_without_a_row_that_is_no_number(redis_url: str) -> None:
    day = datetime.now(UTC).date()
    async with relay_on(redis_url) as relay:
        say = relay.connection.command
        key = redis_keys.usage("default", day.isoformat())
        await say("HSET", key, '["box","chat","good"]', b"1 2 3", GARBAGE, b"1 2 3", "[]", b"x")
        await say("HSET", redis_keys.spending("default"), "d1", GARBAGE, "m1", b"1")
        query = UsageQuery(day, day, ("model",), "default")
        rows = await Ledger(relay.connection).read(query)
        (limits,) = await TenantLimits(relay.connection).view([DEFAULT_TENANT])

    assert list(rows) == [("good",)]
    assert limits.tenant == "default"
