"""Clocks and counts of a queue that nobody has reached or counted keep no job out.

Subjects: relay/lua/shared/queue.lua, relay/lua/shared/arrival.lua, relay/lua/audit/append.lua.
"""

import json

import pytest
from support.relay import QUEUE, Relay, chat, relay_on

from contract import redis_keys
from contract.tenants import Tenant
from relay.access.audit_log import AuditLog
from relay.position import Positions

ODD = ("nan", "inf", "-inf", "9" * 400, "1e300", "-1e300", "x", "")
RED, BLUE = Tenant(name="red"), Tenant(name="blue")


async def put(relay: Relay, tenant: Tenant) -> str:
    record, _ = await relay.queue.enqueue(chat(), queue=QUEUE, tenant=tenant)
    return record.id


@pytest.mark.parametrize("value", ODD)
async def test_a_clock_that_nobody_has_reached_counts_for_nothing(
    redis_url: str, value: str
) -> None:
    async with relay_on(redis_url) as relay:
        say = relay.connection.command
        await put(relay, RED)
        fields = [each.decode() for each in await say("HKEYS", redis_keys.clocks(QUEUE))]
        flow = next(each for each in fields if each.endswith(" red"))
        for field in ("now", flow):
            await say("HSET", redis_keys.clocks(QUEUE), field, value)
            await put(relay, RED)
            await put(relay, BLUE)
        claims = [await relay.claim() for _ in range(5)]
        scores = await say("HVALS", redis_keys.clocks(QUEUE))

    assert {each.record.tenant for each in claims} == {"red", "blue"}
    assert all(float(each) < 1e11 for each in scores)


@pytest.mark.parametrize("value", ODD)
@pytest.mark.parametrize("field", ["tokens", "bytes", "jobs red", "tokens red", "bytes red"])
@pytest.mark.parametrize("key", [redis_keys.load(QUEUE), redis_keys.scheduled(QUEUE)])
async def test_a_count_that_nobody_has_counted_refuses_nothing(
    redis_url: str, key: str, field: str, value: str
) -> None:
    async with relay_on(redis_url, tenant_limit=50) as relay:
        await put(relay, RED)
        await relay.connection.command("HSET", key, field, value)
        for tenant in (RED, BLUE):
            await put(relay, tenant)
        claims = [await relay.claim() for _ in range(3)]

    assert len({each.record.id for each in claims}) == 3


@pytest.mark.parametrize(
    "text", ["{}", "[]", "null", "true", "1e999", "-1e999", "1.5", "1e13", "-1", '"x"', '"\\ud800"']
)
@pytest.mark.parametrize(
    "field", ["v", "attempt", "tokens", "slack", "start", "at", "bytes", "tenant", "model", "ctx",
              "conv", "due", "share", "flow", "passed", "away"],
)  # fmt: skip
async def test_a_fact_of_another_type_keeps_only_its_own_job_waiting(
    redis_url: str, field: str, text: str
) -> None:
    # The scripts broke over it: nobody could claim a job of the queue, nor cancel this one.
    async with relay_on(redis_url) as relay:
        key, say = redis_keys.facts(QUEUE), relay.connection.command
        await put(relay, RED)
        damaged, cancelled = await put(relay, RED), await put(relay, RED)
        for each in (damaged, cancelled):
            facts = json.loads(await say("HGET", key, each)) | {field: "@"}
            await say("HSET", key, each, json.dumps(facts).replace('"@"', text))
        await put(relay, BLUE)
        await relay.queue.cancel(cancelled, by="client")
        found = [await relay.start_next(QUEUE, "w") for _ in range(4)]
        left = await say("HEXISTS", key, damaged)
        waits = await say("ZSCORE", redis_keys.backlog(QUEUE), damaged)

    claimed = {each.record.id: each.record.tenant for each in found if each}
    assert list(claimed.values()).count("blue") == 1
    assert cancelled not in claimed
    if field != "v":  # which may be of a newer version
        assert waits is None
        assert (damaged in claimed) == left  # deleted facts are restored by the maintainer


@pytest.mark.parametrize("refused", [False, True])
async def test_garbage_among_the_ids_of_entries_keeps_none_out_of_the_audit_log(
    redis_url: str, *, refused: bool
) -> None:
    async with relay_on(redis_url) as relay:
        log = AuditLog(relay.connection)
        key = redis_keys.audit_refused_of("red") if refused else redis_keys.audit_of("red")
        await relay.connection.command("RPUSH", key, *["null"] * 600, "nan", "9" * 400, "\x00")
        for at in range(8):
            fields = {"key": "k", "action": f"POST /{at}", "status": 200}
            await log.append(RED, fields, refused=refused)
        page = await log.page(limit=50, before=None, refused=refused)

    assert [each.action for each in page.entries] == [f"POST /{at}" for at in range(7, -1, -1)]


@pytest.mark.parametrize("score", ["-inf", "+inf", "-1e300"])
async def test_a_job_that_was_enqueued_at_no_time_has_a_finite_age_or_none(
    redis_url: str, score: str
) -> None:
    async with relay_on(redis_url) as relay:
        job = await put(relay, RED)
        await relay.connection.command("ZADD", redis_keys.arrivals(QUEUE), score, job)
        (counts,) = await Positions(relay.connection).survey([QUEUE])

    assert counts.depth == 1
    assert counts.oldest_at in (None, -1e300)
