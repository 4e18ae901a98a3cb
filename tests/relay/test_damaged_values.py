"""A damaged value in a hash is passed over and named: scripts and views go on for all others.

Subjects: relay/connection.py, relay/leases.py, relay/scaling/demand.py, relay/metrics/totals.py.
"""

import asyncio
import logging
import time
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from support.redis_server import RedisServer
from support.relay import QUEUE, Relay, chat, relay_on

from contract import redis_keys
from contract.errors import RelayUnavailable
from contract.roster import WorkerReport
from contract.tenants import NewKey, Tenant
from relay import connection, reconciler
from relay.api_keys import ApiKeys, ApiKeyTable
from relay.connection import BrokenScript, DamagedKey, ScriptCall
from relay.deletion.tenant_deletions import TenantDeletions
from relay.metrics.census import Census
from relay.metrics.fleet_metrics import FleetMetrics
from relay.metrics.totals import FleetTotals, Increase
from relay.roster import RosterStore
from relay.scheduling.pauses import QueuePauses
from relay.usage.ledger import Ledger, UsageQuery
from relay.usage.limits import TenantLimits
from telemetry import repeated_warnings

GARBAGE = b"\xff\xfe{garbage"


@pytest.mark.parametrize("text", [GARBAGE, b'{"v": 1', b"{}", b"[]", b""], ids=repr)
async def test_a_job_with_damaged_facts_holds_nobody_up_and_runs_later(
    redis_url: str, text: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "_SETTLED_S", -60)
    async with relay_on(redis_url) as relay:
        damaged, good = await relay.enqueue(), await relay.enqueue()
        await relay.connection.command("HSET", redis_keys.facts(QUEUE), damaged, text)
        first = await relay.start_next(QUEUE, "w1")
        await relay.reconciler.reconcile()
        second = await relay.start_next(QUEUE, "w1")

    assert [each and each.record.id for each in (first, second)] == [good, damaged]


@pytest.mark.parametrize("name", ["clocks", "load", "scheduled"])
async def test_damaged_counts_of_a_queue_stop_no_enqueue_and_no_claim(
    redis_url: str, name: str
) -> None:
    async with relay_on(redis_url) as relay:
        await relay.enqueue(not_before=time.time() + 3600)
        jobs = [await relay.enqueue() for _ in range(2)]
        key = getattr(redis_keys, name)(QUEUE)
        fields = await relay.connection.command("HKEYS", key)
        for field in {*fields, b"now", b"arrivals", b"tokens", b"jobs default"}:
            await relay.connection.command("HSET", key, field, GARBAGE)
        jobs.append(await relay.enqueue())
        started = [await relay.start_next(QUEUE, "w1") for _ in range(3)]
        (view,) = await relay.queue.positions.views([])

    assert {each.record.id for each in started if each} == set(jobs)
    assert (view.name, view.in_flight) == (QUEUE, 3)


async def test_a_lease_with_a_damaged_holder_is_handed_over(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    # On the session's server a shim of other tests may be faster to take these leases away.
    caplog.set_level(logging.WARNING, "relay.connection")
    async with relay_on(own_redis.url, lease_s=0.01) as relay:
        damaged, other = await relay.enqueue(), await relay.enqueue()
        for _ in range(2):
            await relay.claim()
        key = redis_keys.holders(QUEUE)
        await relay.connection.command("HSET", key, damaged, GARBAGE)
        wanted = (await Census(relay.connection).read()).wanted
        while not await relay.connection.call(_expired()):
            pass
        moved = await relay.leases.reap()
        again = [await relay.start_next(QUEUE, "w2") for _ in range(2)]

    assert (wanted.busy, moved) == (1, 2)
    assert {each.record.id for each in again if each} == {damaged, other}
    assert key in caplog.text


def _expired() -> ScriptCall[bool]:
    key = redis_keys.leases(QUEUE)
    text = "local t = redis.call('TIME')[1] return redis.call('ZCOUNT', KEYS[1], 0, t) == 2"
    return ScriptCall(text, [key], [], bool)


async def test_metrics_are_told_without_totals_that_are_none_and_count_on(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "relay.connection")
    async with relay_on(redis_url) as relay:
        say = relay.connection.command
        good, bad = ("retries_total", "", "good"), '["retries_total","","bad"]'
        names = [GARBAGE, GARBAGE, "[1]", "1", "[]", "1", '[["a"],"b"]', "1", bad, GARBAGE]
        await say("HSET", redis_keys.METRICS, "since", GARBAGE, *names)
        totals = FleetTotals(relay.connection)
        await totals.add([Increase(good, 2.0), Increase(("retries_total", "", "bad"), 3.0)])
        found = await totals.read()
        metrics = await FleetMetrics(totals, Census(relay.connection)).read()

    assert found.values == {good: 2.0, ("retries_total", "", "bad"): 3.0}
    assert len(metrics) > 1
    assert redis_keys.METRICS in caplog.text


@pytest.mark.parametrize("words", [("SET",), ("HSET", "mark")], ids=str)
async def test_one_tenants_damaged_ledger_keeps_no_others_usage_waiting(
    redis_url: str, words: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "relay.connection")
    async with relay_on(redis_url) as relay:
        key = redis_keys.spending("red")
        for tenant in ("red", "blue"):
            await relay.queue.enqueue(chat(), queue=QUEUE, tenant=Tenant(name=tenant))
            await relay.run(await relay.claim())
        await relay.connection.command(words[0], key, *words[1:], GARBAGE)
        day = datetime.now(UTC).date()
        rows = await Ledger(relay.connection).read(UsageQuery(day, day, ("tenant",)))
        left = await relay.connection.command("XLEN", redis_keys.UNSETTLED)

    assert ("blue",) in rows
    assert left == 0
    assert key in caplog.text


async def test_a_damaged_number_of_a_limit_is_named(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "relay.connection")
    async with relay_on(redis_url, tenant_tokens_day=100) as relay:
        key = redis_keys.spending("red")
        await relay.connection.command("HSET", key, "d1", GARBAGE, "n0", "1 2 x")
        (view,) = await TenantLimits(relay.connection).view([Tenant(name="red")])

    assert [each.used for each in view.limits] == [0.0]
    assert key in caplog.text


async def test_a_damaged_key_of_the_table_leaves_the_others_valid(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "relay.connection")
    async with relay_on(redis_url) as relay:
        keys = ApiKeys(relay.connection)
        issued = await keys.issue(NewKey(tenant="boss", admin=True))
        for at, text in enumerate((GARBAGE, b"", b"1 x {}", b"1 1 {")):
            await relay.connection.command("HSET", redis_keys.KEYS, f"bad{at}", text)
        await relay.connection.command("HSET", redis_keys.KEYS_USED, issued.id, GARBAGE)
        table = await keys.refresh(ApiKeyTable())
        (known,) = await keys.with_uses([each.facts for each in table.entries.values()])

    assert (known.id, known.last_used_at) == (issued.id, None)
    assert redis_keys.KEYS in caplog.text


async def test_an_answer_that_cannot_be_read_is_an_outage_that_names_the_keys(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "relay.connection")
    async with relay_on(redis_url) as relay:
        await relay.connection.command("SET", "odd", "x")
        get = "return redis.call('GET', KEYS[1])"
        with pytest.raises(DamagedKey):
            await relay.connection.call(ScriptCall(get, ["odd", "none"], [], int))
        with pytest.raises(RelayUnavailable):
            await relay.connection.call(ScriptCall("return cjson.decode('{x')", ["odd"], [], int))
        await relay.connection.command("HSET", "numbers", "a", "x")
        with pytest.raises(DamagedKey):
            await relay.connection.command("HINCRBY", "numbers", "a", 1)

    assert "odd (string)" in caplog.text
    assert "numbers (hash)" in caplog.text
    assert "none" not in caplog.text


@pytest.mark.parametrize(
    "text",
    [
        "return nil + 1", "local a return a.b", "return tonumber('x') < 1", "error('x')",
        "return redis.call('EXPIRE', KEYS[1], 'x')", "return redis.call('HSET', KEYS[1])",
        "return cjson.decode(nil)",
    ],
)  # fmt: skip
async def test_a_script_that_breaks_is_named_as_one_and_ends_nothing(
    redis_url: str, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with relay_on(redis_url) as relay:
        await relay.connection.command("SET", "fine", "x")
        call = ScriptCall(text, ["fine"], [], int)
        with pytest.raises(BrokenScript):
            await relay.connection.call(call)
        assert "Redis refuses EVAL" in caplog.text
        assert "damaged" not in caplog.text
        with relay.connection.passing_over("one of many"):
            await relay.connection.call(call)

    assert "one of many" in caplog.text
    assert "Traceback" in caplog.text


async def test_a_damaged_key_is_named_again_after_it_was_mended_and_only_that_of_a_pipeline(
    redis_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repeated_warnings, "_EVERY_S", 0.0)
    monkeypatch.setattr(connection, "_LOOK_AGAIN_S", 0.0)
    caplog.set_level(logging.WARNING, "relay.connection")
    async with relay_on(redis_url) as relay:
        say = relay.connection
        for _ in range(2):
            await say.command("SET", "odd", "x")
            with pytest.raises(DamagedKey):
                await say.pipeline(
                    [*[("GET", f"good{at}") for at in range(40)], ("HGET", "odd", "f")]
                )
            await say.command("DEL", "odd")

    named = [text.partition(": WRONGTYPE")[0] for text in caplog.messages]
    assert named == ["one of these is damaged: odd (string)"] * 2


async def test_a_damaged_key_of_a_script_without_keys_is_an_error_and_no_wait(
    redis_url: str,
) -> None:
    async with relay_on(redis_url) as relay:
        await relay.connection.command("SET", "odd", "x")
        text = "return redis.call('HGET', ARGV[1], 'f')"
        async with asyncio.timeout(10):
            with pytest.raises(DamagedKey):
                await relay.connection.call(ScriptCall(text, [], ["odd"], bool))


async def test_a_deletion_whose_entry_was_never_written_goes_on_when_it_is_asked_for_again(
    redis_url: str,
) -> None:
    async with relay_on(redis_url) as relay:
        await relay.connection.command("SET", redis_keys.DELETIONS, "x")
        deletions = TenantDeletions(relay.connection)
        with pytest.raises(DamagedKey):
            await deletions.begin("red", by="boss", usage="keep")
        await relay.connection.command("DEL", redis_keys.DELETIONS)
        await deletions.begin("red", by="boss", usage="keep")

        assert await deletions.under_way() == ["red"]


@pytest.mark.parametrize(
    "text", [GARBAGE, b'{"windows": 5}', b'{"windows": ["every other day"]}', None], ids=repr
)
@pytest.mark.parametrize("admin_pauses", [False, True])
async def test_a_schedule_that_is_none_is_named(
    redis_url: str, caplog: pytest.LogCaptureFixture, text: bytes | None, *, admin_pauses: bool
) -> None:
    # Run windows went without a word: MGET takes a key of another type for none, too.
    caplog.set_level(logging.WARNING, "relay.connection")
    async with relay_on(redis_url) as relay:
        await relay.enqueue()
        key, say = redis_keys.schedule(QUEUE), relay.connection.command
        await (say("HSET", key, "x", "y") if text is None else say("SET", key, text))
        await say("DEL", QUEUE)
        if admin_pauses:
            with suppress(DamagedKey):
                await QueuePauses(relay.connection).pause(QUEUE)
        else:
            for _ in range(3):
                await relay.leases.reap()
        tickets = await say("LLEN", QUEUE)

    assert caplog.text.count(f"{key} ") == 1
    assert tickets == int(not admin_pauses)


async def test_a_report_of_another_type_is_named_at_the_cost_of_no_other(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "relay.connection")
    async with relay_on(own_redis.url) as relay:
        for name in ("good", "damaged", "dead"):
            await RosterStore(relay.connection).report(_report(name))
        await relay.connection.command("DEL", redis_keys.worker_report("dead"))
        healthy = await commands(relay, 10)
        damaged = redis_keys.worker_report("damaged")
        await relay.connection.pipeline([("DEL", damaged), ("HSET", damaged, "x", "y")])
        cost = await commands(relay, 10)
        found = await relay.roster.workers()

    assert [each.name for each in found] == ["good"]
    assert caplog.text.count(damaged) == 1
    assert "dead" not in caplog.text.replace("'dead'", "")
    assert (healthy, cost) == (20 + 1, 20 + 1)


def _report(name: str) -> WorkerReport:
    return WorkerReport(v=1, name=name, started_at=0, backends=(), queues=())


async def test_a_count_that_no_process_wrote_is_no_part_of_a_rate(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        positions = relay.queue.positions

        assert positions.rate([b"9" * 400, b"-1", b"nan", b""]) is None
        rate = positions.rate([b"9" * 400, b"60"])
        assert rate is not None
        assert 0.5 <= rate <= 1


async def commands(relay: Relay, count: int) -> int:
    """Commands that so many looks at the roster cost."""
    before = await calls(relay)
    for _ in range(count):
        await relay.roster.workers()
    return await calls(relay) - before - 1


async def calls(relay: Relay) -> int:
    told = await relay.connection.command("INFO", "commandstats")
    return sum(int(each["calls"]) for each in told.values())
