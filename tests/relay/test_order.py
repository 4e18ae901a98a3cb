"""Who is next: shares by weight, latecomers, classes, warm models, bounds."""

import asyncio
import json
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from support.relay import QUEUE, Relay, chat, relay_on

from contract import redis_keys
from contract.cost import cost_of
from contract.errors import QueueFull
from contract.requests import SLACK_S, Priority
from contract.tenants import DEFAULT_TENANT, Tenant
from relay.order import ClaimFilter
from relay.position import Positions
from relay.scripts import queues as scripts

on_redis = settings(
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
NOBODY_ELSE = Tenant(name="late")
ANYTHING = ClaimFilter()


async def put(relay: Relay, tenant: Tenant, **fields: Any) -> str:
    record, _ = await relay.queue.enqueue(chat(**fields), queue=QUEUE, tenant=tenant)
    return record.id


async def claimed(relay: Relay, claim_filter: ClaimFilter = ANYTHING) -> Any:
    claim = await relay.start_next(QUEUE, "w", claim_filter)
    return None if claim is None else claim.record


async def emptied(relay: Relay) -> None:
    await relay.connection.command("FLUSHDB")


@pytest.mark.slow
@settings(on_redis, max_examples=6)
@given(
    weights=some.tuples(some.floats(0.5, 8), some.floats(0.5, 8)),
    lengths=some.tuples(some.integers(5, 500), some.integers(5, 500)),
    seed=some.integers(0, 2**16),
)
def test_two_tenants_that_flood_get_shares_by_weight(
    redis_url: str, weights: tuple[float, float], lengths: tuple[int, int], seed: int
) -> None:
    # llm-d-router #1182, vllm #31909, LocalAI #10069: fair by tokens, not by turns.
    async def story() -> tuple[float, float]:
        dice, served = random.Random(seed), Counter[str]()
        tenants = [Tenant(name=name, weight=w) for name, w in zip("ab", weights, strict=True)]
        usual = dict(zip("ab", lengths, strict=True))

        async def one_more(tenant: Tenant) -> None:
            tokens = max(1, int(usual[tenant.name] * dice.uniform(0.5, 1.5)))
            await put(relay, tenant, max_tokens=tokens)

        async with relay_on(redis_url) as relay:
            await emptied(relay)
            for _ in range(5):
                await asyncio.gather(*(one_more(tenant) for tenant in tenants))
            target_s = 40 * max(usual[t.name] / 50 / t.weight for t in tenants) * sum(weights)
            while served.total() < target_s * 1000:
                record = await claimed(relay)
                cost = cost_of(await relay.records.request(record.id))
                served[record.tenant] += int(cost.seconds * 1000)
                await one_more(next(t for t in tenants if t.name == record.tenant))
        return served["a"] / served.total(), weights[0] / sum(weights)

    share, fair = asyncio.run(story())

    assert share == pytest.approx(fair, rel=0.1)


@on_redis
@given(waiting=some.integers(1, 40), served=some.integers(0, 30), tokens=some.integers(1, 500))
def test_a_tenant_that_comes_late_is_served_next(
    redis_url: str, waiting: int, served: int, tokens: int
) -> None:
    async def story() -> tuple[str, str]:
        async with relay_on(redis_url) as relay:
            await emptied(relay)
            for _ in range(waiting):
                await put(relay, Tenant(name="flood"), max_tokens=tokens)
            for _ in range(min(served, waiting - 1)):
                await claimed(relay)
            late = await put(relay, NOBODY_ELSE, max_tokens=tokens)
            at_once = [await claimed(relay) for _ in range(2)]
        return late, " ".join(record.id for record in at_once)

    late, at_once = asyncio.run(story())

    assert late in at_once


Arrival = tuple[str, Priority, int]
arrivals = some.lists(
    some.one_of(
        some.none(),
        some.tuples(
            some.sampled_from("abc"),
            some.sampled_from(["interactive", "standard", "batch"]),
            some.integers(1, 500),
        ),
    ),
    min_size=10,
    max_size=60,
)
"""Jobs of a tenant, a class and a length; None is a claim."""


@pytest.mark.slow
@on_redis
@given(before=arrivals, after=arrivals)
def test_no_job_is_overtaken_for_longer_than_the_bound(
    redis_url: str, before: list[Arrival | None], after: list[Arrival | None]
) -> None:
    """By a flow of another tenant's: no more work than the classes' difference and one job."""

    async def story() -> tuple[Counter[tuple[str, Priority]], dict[tuple[str, Priority], float]]:
        later: dict[str, tuple[str, Priority, float]] = {}
        overtook, largest = Counter[tuple[str, Priority]](), dict[tuple[str, Priority], float]()
        async with relay_on(redis_url) as relay:
            await emptied(relay)
            await put(relay, Tenant(name="a"))
            for arrival in before:
                await _happens(relay, arrival, {})
            mine = await put(relay, NOBODY_ELSE)
            for arrival in [*after, *[None] * 200]:
                record = await _happens(relay, arrival, later)
                if arrival is None and (record is None or record.id == mine):
                    break
                if record is not None and record.id in later:
                    tenant, priority, cost_s = later[record.id]
                    overtook[tenant, priority] += cost_s  # type: ignore[assignment]
                    flow = (tenant, priority)
                    largest[flow] = max(largest.get(flow, 0.0), cost_s)
        return overtook, largest

    overtook, largest = asyncio.run(story())

    for (tenant, priority), work_s in overtook.items():
        bound_s = SLACK_S["standard"] - SLACK_S[priority]
        assert work_s <= bound_s + largest[tenant, priority] + 1e-3


async def _happens(
    relay: Relay, arrival: Arrival | None, later: dict[str, tuple[str, Priority, float]]
) -> Any:
    if arrival is None:
        return await claimed(relay)
    name, priority, tokens = arrival
    request = chat(priority=priority, max_tokens=tokens)
    record, _ = await relay.queue.enqueue(request, queue=QUEUE, tenant=Tenant(name=name))
    later[record.id] = (name, priority, cost_of(request).seconds)
    return None


@on_redis
@given(batch=some.integers(1, 40), rounds=some.integers(1, 5))
def test_batch_never_stands_before_interactive(redis_url: str, batch: int, rounds: int) -> None:
    async def story() -> tuple[list[str], list[str]]:
        async with relay_on(redis_url) as relay:
            await emptied(relay)
            for _ in range(batch):
                await put(relay, Tenant(name="flood"), priority="batch")
            asked, got = [], []
            for _ in range(rounds):
                asked.append(await put(relay, NOBODY_ELSE, priority="interactive"))
                got.append((await claimed(relay)).id)
                await claimed(relay)
        return asked, got

    asked, got = asyncio.run(story())

    assert asked == got


async def test_classes_age(redis_url: str) -> None:
    """A batch job waits for 600 s of interactive work of one tenant, and not for more."""
    async with relay_on(redis_url) as relay:
        batch = await put(relay, NOBODY_ELSE, priority="batch")
        cost_s = cost_of(chat(priority="interactive")).seconds
        count = int(600 / cost_s)
        flood = Tenant(name="flood")
        for _ in range(count + 3):
            await put(relay, flood, priority="interactive")
        order = [(await claimed(relay)).id for _ in range(count + 3)]

        assert order.index(batch) == pytest.approx(count, abs=2)


async def test_a_warm_model_overtakes_a_cold_head(redis_url: str) -> None:
    # litellm #18127: requests for the same model should be pulled forward, with a bound.
    async with relay_on(redis_url) as relay:
        cold = await put(relay, NOBODY_ELSE)
        warm = await relay.queue.enqueue(chat().model_copy(update={"model": "w"}), queue=QUEUE)

        assert warm[0].id == (await claimed(relay, ClaimFilter(warm=frozenset({"w"})))).id
        assert cold == (await claimed(relay, ClaimFilter(warm=frozenset({"w"})))).id


async def test_a_cold_head_is_overtaken_no_longer_than_the_patience(redis_url: str) -> None:
    # litellm #18127: ... with a bound.
    async with relay_on(redis_url) as relay:
        cold = await put(relay, NOBODY_ELSE)
        for _ in range(3):
            await relay.queue.enqueue(chat().model_copy(update={"model": "w"}), queue=QUEUE)
        warm = ClaimFilter(warm=frozenset({"w"}))
        assert (await claimed(relay, warm)).model == "w"
        key = redis_keys.facts(QUEUE)
        facts = json.loads(await relay.connection.command("HGET", key, cold))
        facts["passed"] -= relay.connection.settings.affinity_patience_s
        await relay.connection.command("HSET", key, cold, json.dumps(facts))

        assert cold == (await claimed(relay, warm)).id


async def test_a_warm_batch_job_does_not_overtake_a_cold_urgent_one(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        batch = chat(priority="batch").model_copy(update={"model": "w"})
        await relay.queue.enqueue(batch, queue=QUEUE)
        cold = await put(relay, NOBODY_ELSE, priority="interactive")

        assert cold == (await claimed(relay, ClaimFilter(warm=frozenset({"w"})))).id


async def test_while_a_model_loads_only_jobs_of_warm_models_are_taken(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await put(relay, NOBODY_ELSE)
        loading = ClaimFilter(warm=frozenset({"w"}), cold=False)

        assert None is await claimed(relay, loading)
        await relay.queue.enqueue(chat().model_copy(update={"model": "w"}), queue=QUEUE)
        assert (await claimed(relay, loading)).model == "w"


async def test_while_a_worker_drains_warm_jobs_overtake_for_the_patience_only(
    redis_url: str,
) -> None:
    async with relay_on(redis_url, affinity_patience_s=0.3) as relay:
        cold = await put(relay, NOBODY_ELSE)
        for _ in range(3):
            await relay.queue.enqueue(chat().model_copy(update={"model": "w"}), queue=QUEUE)
        draining = ClaimFilter(warm=frozenset({"w"}), cold=False, drains=True)
        assert (await claimed(relay, draining)).model == "w"
        await asyncio.sleep(0.5)  # the patience is over; a timer of uvloop may be early

        assert None is await claimed(relay, draining)
        assert cold == (await claimed(relay, ClaimFilter(warm=frozenset({"w"})))).id


async def test_a_worker_whose_batch_slots_are_full_takes_what_is_not_batch(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        for _ in range(40):
            await put(relay, NOBODY_ELSE, priority="batch")

        assert None is await claimed(relay, ClaimFilter(batch=False))
        standard = await put(relay, NOBODY_ELSE)
        assert standard == (await claimed(relay, ClaimFilter(batch=False))).id


async def test_a_tenant_has_a_bound_of_its_own(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        small = Tenant(name="small", limit_jobs=2)
        for _ in range(2):
            await put(relay, small)
        with pytest.raises(QueueFull, match="2 jobs of tenant small") as caught:
            await put(relay, small)
        await put(relay, NOBODY_ELSE)

        assert (caught.value.facts["scope"], caught.value.facts["limit"]) == ("tenant", 2)
        await claimed(relay)
        await put(relay, small)


async def _until_refused(relay: Relay, tenant: Tenant, **fields: Any) -> tuple[int, QueueFull]:
    """How many jobs of a tenant are taken, and why the next one is not."""
    for taken in range(1000):
        try:
            await put(relay, tenant, **fields)
        except QueueFull as error:
            return taken, error
    raise AssertionError("its jobs have no bound")


async def test_a_tenant_that_floods_leaves_room_for_every_other_one(redis_url: str) -> None:
    async with relay_on(redis_url, queue_limit=50) as relay:
        taken = [await _until_refused(relay, Tenant(name=f"t{n}")) for n in range(60)]

        assert [count for count, _ in taken[:5]] == [25, 12, 6, 3, 2]
        assert all(count for count, _ in taken)
        assert [error.facts["scope"] for _, error in taken[:4]] == ["tenant"] * 4
        assert "FLEET_TENANT_SHARE" in str(taken[0][1])
        assert taken[-1][1].facts["scope"] == "queue"


async def test_a_tenant_that_floods_with_tokens_leaves_room_too(redis_url: str) -> None:
    async with relay_on(redis_url, queue_limit_tokens=10_000) as relay:
        taken, error = await _until_refused(relay, Tenant(name="a"), max_tokens=900)
        others = [await _until_refused(relay, Tenant(name=f"t{n}"), max_tokens=900) for n in "xyz"]

        assert taken > 1
        assert error.facts["held"] <= 5000
        assert (error.facts["scope"], error.facts["limit"]) == ("tenant", 5000)
        assert all(count for count, _ in others)


async def test_scheduled_jobs_leave_room_for_other_tenants(redis_url: str) -> None:
    async with relay_on(redis_url, queue_limit=10) as relay:
        due = {"not_before": relay.connection.now() + 3600}
        taken = [await _until_refused(relay, Tenant(name=f"t{n}"), **due) for n in range(12)]

        assert taken[0][0] == 5
        assert all(count for count, _ in taken)


async def test_without_keys_a_queue_is_filled_whole(redis_url: str) -> None:
    async with relay_on(redis_url, queue_limit=10) as relay:
        taken, error = await _until_refused(relay, DEFAULT_TENANT)

        assert taken == 10
        assert error.facts["scope"] == "queue"


async def test_waiting_tokens_have_a_bound(redis_url: str) -> None:
    async with relay_on(redis_url, queue_limit_tokens=1000) as relay:
        await put(relay, NOBODY_ELSE, max_tokens=400)
        with pytest.raises(QueueFull, match="FLEET_QUEUE_LIMIT_TOKENS"):
            await put(relay, NOBODY_ELSE, text="long " * 1000)
        await claimed(relay)

        await put(relay, NOBODY_ELSE, text="long " * 1000)


async def test_a_job_that_comes_back_is_as_old_as_it_was(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        first = await put(relay, NOBODY_ELSE)
        claim = await relay.claim()
        await asyncio.sleep(0.3)
        await put(relay, NOBODY_ELSE)
        await relay.leases.hand_over(QUEUE, first, claim.attempt, reason="it moves", counts=False)
        [view] = await Positions(relay.connection).views([])

    assert view.depth == 2
    assert view.oldest_s is not None
    assert view.oldest_s >= 0.3


async def test_what_an_older_version_enqueued_counts_from_the_head(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await put(relay, NOBODY_ELSE)
        await relay.connection.command("DEL", redis_keys.arrivals(QUEUE))
        [view] = await Positions(relay.connection).views([])

    assert view.oldest_s is not None


async def test_the_age_of_a_queue_is_that_of_its_oldest_job_not_of_its_head(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        oldest = await put(relay, NOBODY_ELSE, priority="batch")
        await asyncio.sleep(0.3)
        head = await put(relay, NOBODY_ELSE, priority="interactive")
        [before] = await Positions(relay.connection).views([])
        claim = await claimed(relay)
        await relay.connection.command("ZREM", redis_keys.backlog(QUEUE), oldest)
        await put(relay, NOBODY_ELSE)
        [after] = await Positions(relay.connection).views([])

    assert claim.id == head
    assert before.oldest_s is not None
    assert before.oldest_s >= 0.3
    assert after.oldest_s is not None
    assert after.oldest_s < before.oldest_s


async def test_a_job_that_comes_back_is_as_old_as_before(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        first = await put(relay, NOBODY_ELSE)
        claim = await claimed(relay)
        await put(relay, NOBODY_ELSE)
        await relay.leases.hand_over(QUEUE, first, claim.attempt, reason="test", counts=False)

        assert claim.id == first
        assert await relay.connection.call(scripts.oldest(QUEUE)) == first
