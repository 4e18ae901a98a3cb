"""Limits of tokens and money: reserved before a job, settled after it, whatever becomes of it.

Subjects: relay/usage/limits.py, relay/usage/settlement.py, contract/tenants.py.
"""

import asyncio
import time
from typing import Any

import pytest
from support.relay import QUEUE, Relay, chat, relay_on, words
from typing_extensions import override

from contract import redis_keys
from contract.errors import BudgetSpent, FleetError, OverLimit, QueueFull, RateLimited
from contract.events import Done, Event, Usage
from contract.images import ImageRequest
from contract.tenants import Tenant
from contract.usage import ModelPrice
from relay.usage.limits import TenantLimits
from relay.usage.settlement import Settlement
from telemetry.relay_observer import RelayObserver

DONE = Done(usage=Usage(prompt_tokens=10, completion_tokens=10))
RESERVED = 2 + 8 + 20
"""Of `ask`: a prompt of 5 bytes, what a template adds, and max_tokens."""


async def ask(
    relay: Relay, tenant: Tenant, max_tokens: int | None = 20, in_s: float | None = None
) -> str:
    not_before = None if in_s is None else relay.connection.now() + in_s
    request = chat(max_tokens=max_tokens, not_before=not_before)
    record, _ = await relay.queue.enqueue(request, queue=QUEUE, tenant=tenant)
    return record.id


async def answer(relay: Relay, *events: Event) -> None:
    log = relay.attempt_log(await relay.claim())
    for event in events:
        log.append(event)
    await log.flush()


async def held(relay: Relay, tenant: str = "a") -> int:
    """How many jobs something is reserved for."""
    await Settlement(relay.connection).settle(5)
    return int(await relay.connection.command("HLEN", redis_keys.reserved(tenant)))


async def day(relay: Relay, tenant: str = "a") -> tuple[int, int]:
    """Tokens and money (billionths) that count today."""
    await Settlement(relay.connection).settle(5)
    fields = await relay.connection.command("HGETALL", redis_keys.spending(tenant))
    (text,) = [value for name, value in fields.items() if name.startswith(b"d")]
    _, tokens, nano = text.split()
    return int(tokens), int(nano)


async def test_two_hundred_requests_at_once_reserve_no_more_than_the_limit(redis_url: str) -> None:
    tenant = Tenant(name="a", limit_tokens_day=1000)
    async with relay_on(redis_url) as relay:
        outcomes = await asyncio.gather(
            *(ask(relay, tenant) for _ in range(200)), return_exceptions=True
        )
        taken = [each for each in outcomes if isinstance(each, str)]
        refused = [each for each in outcomes if isinstance(each, BudgetSpent)]
        tokens, _ = await day(relay)

    assert (len(taken), len(taken) + len(refused)) == (1000 // RESERVED, 200)
    assert tokens == len(taken) * RESERVED
    assert "limit_tokens_day" in refused[0].message
    assert "lower max_tokens" in refused[0].message
    assert 0 < (refused[0].retry_after_s or 0) <= 86400


async def test_what_a_job_did_not_use_is_free_again_at_its_end(redis_url: str) -> None:
    tenant = Tenant(name="a", limit_tokens_minute=RESERVED + 20)
    async with relay_on(redis_url) as relay:
        await ask(relay, tenant)
        with pytest.raises(RateLimited) as refused:
            await ask(relay, tenant)
        await answer(relay, *words(2), DONE)
        await asyncio.sleep(0.3)  # as often as a process settles before it refuses
        await ask(relay, tenant)
        jobs = await held(relay)

    assert 55 <= (refused.value.retry_after_s or 0) <= 65
    assert jobs == 1


@pytest.mark.parametrize("how", ["cancelled", "killed", "never started", "deadline"])
async def test_no_end_leaves_a_reservation(redis_url: str, how: str) -> None:
    tenant = Tenant(name="a", limit_tokens_day=10_000)
    async with relay_on(redis_url) as relay:
        job_id = await ask(relay, tenant)
        if how == "deadline":
            await relay.connection.command("ZADD", redis_keys.DEADLINES, 1, job_id)
            await relay.reconciler.reconcile()
        elif how == "never started":
            await relay.queue.cancel(job_id, by="caller")
        elif how == "cancelled":
            await answer(relay, *words(5))
            await relay.queue.cancel(job_id, by="caller")
        else:
            await answer(relay, *words(5))
            await relay.leases.release_worker("w1")
            assert await held(relay) == 1
            await answer(relay, *words(3), DONE)
        left, (tokens, _) = await held(relay), await day(relay)
        assert await relay.connection.command("EXISTS", redis_keys.RESERVING) == 0

    # A killed attempt counts its prompt, as the second reports it, and what it streamed.
    expected = {"cancelled": 2 + 5, "killed": 20 + 10 + 5, "never started": 0, "deadline": 0}
    assert (left, tokens) == (0, expected[how])


async def test_a_refused_enqueue_leaves_none(redis_url: str) -> None:
    tenant = Tenant(name="a", limit_tokens_day=10_000)
    async with relay_on(redis_url, queue_limit=1) as relay:
        await ask(relay, tenant)
        with pytest.raises(QueueFull):
            await ask(relay, tenant)

        assert await held(relay) == 1
        assert await day(relay) == (RESERVED, 0)


async def test_a_shim_that_dies_between_reservation_and_enqueue_leaves_none(
    redis_url: str,
) -> None:
    async with relay_on(redis_url) as relay:
        limits = TenantLimits(relay.connection)
        request, tenant = chat(max_tokens=20), Tenant(name="a", limit_tokens_day=10_000)
        there = await ask(relay, tenant)
        record = await relay.records.get(there)
        _, reservation = limits.priced(record.model_copy(update={"id": "b" * 32}), request, tenant)
        with pytest.raises(asyncio.CancelledError):
            async with limits.reserving(reservation):
                raise asyncio.CancelledError
        before = await held(relay)
        members = await relay.connection.command("ZRANGE", redis_keys.RESERVING, 0, -1)
        await relay.connection.command(
            "ZADD", redis_keys.RESERVING, *(each for name in members for each in (1, name))
        )
        await relay.reconciler.reconcile()
        checked_again = await relay.connection.command("ZRANGE", redis_keys.RESERVING, 0, -1)

        assert (before, await held(relay), await day(relay)) == (2, 1, (RESERVED, 0))
        assert checked_again == [f"a {there}".encode()]


async def test_a_job_that_an_older_worker_ended_keeps_no_reservation(redis_url: str) -> None:
    """Its scripts write no entry for the ledger."""
    async with relay_on(redis_url) as relay:
        await ask(relay, Tenant(name="a", limit_tokens_day=10_000))
        await answer(relay, DONE)
        await relay.connection.command("DEL", redis_keys.UNSETTLED)
        (member,) = await relay.connection.command("ZRANGE", redis_keys.RESERVING, 0, -1)
        await relay.connection.command("ZADD", redis_keys.RESERVING, 1, member)
        before = await held(relay)
        await relay.reconciler.reconcile()

        assert (before, await held(relay), await day(relay)) == (1, 0, (0, 0))
        assert await relay.connection.command("EXISTS", redis_keys.RESERVING) == 0


async def test_the_same_job_reserves_once(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        tenant = Tenant(name="a", limit_tokens_day=10_000)
        for _ in range(3):
            await relay.queue.enqueue(
                chat(max_tokens=20), queue=QUEUE, tenant=tenant, job_id="c" * 32
            )

        assert await day(relay) == (RESERVED, 0)


async def test_money_is_reserved_by_price_and_settled_by_use(redis_url: str) -> None:
    prices = {"m": ModelPrice(input=1000, output=1000), "draw": ModelPrice(image=0.5)}
    tenant = Tenant(name="a", limit_spend_day=1, limit_spend_month=100)
    async with relay_on(redis_url, prices=prices) as relay:
        await ask(relay, tenant)
        reserved = await day(relay)
        await answer(relay, DONE)
        used = await day(relay)
        draw = ImageRequest(model="draw", prompt="a cat")
        await relay.queue.enqueue(draw, queue="scripted.image", tenant=tenant)
        with pytest.raises(BudgetSpent, match=r"1 USD a day .*limit_spend_day.*fewer images"):
            await relay.queue.enqueue(draw, queue="scripted.image", tenant=tenant)

    assert reserved == (RESERVED, RESERVED * 1_000_000)
    assert used == (20, 20_000_000)


async def test_what_can_never_fit_is_told_so(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        with pytest.raises(OverLimit, match="lower max_tokens") as refused:
            await ask(relay, Tenant(name="a", limit_tokens_minute=50), max_tokens=1000)

    assert refused.value.retry_after_s is None


async def test_an_answer_without_a_bound_gets_one_that_fits_the_limit(redis_url: str) -> None:
    async with relay_on(redis_url, answer_tokens=500) as relay:
        wide = await ask(relay, Tenant(name="a", limit_tokens_day=10_000), None)
        narrow = await ask(relay, Tenant(name="b", limit_tokens_day=110), None)
        free = await ask(relay, Tenant(name="c"), None)
        records = [await relay.records.get(id) for id in (wide, narrow, free)]

    assert [record.answer_limit for record in records] == [500, 100, None]
    assert [record.reserved_tokens for record in records] == [510, 110, None]


async def test_a_tenant_without_a_limit_costs_nothing_and_counts_when_it_gets_one(
    redis_url: str,
) -> None:
    async with relay_on(redis_url) as relay:
        await ask(relay, Tenant(name="a"))
        before = await relay.connection.command("EXISTS", redis_keys.RESERVING)
        await answer(relay, DONE)
        await Settlement(relay.connection).settle(5)
        with pytest.raises(BudgetSpent):
            await ask(relay, Tenant(name="a", limit_tokens_day=RESERVED + 19))

    assert before == 0


async def test_one_tenant_at_its_limit_stops_no_other(redis_url: str) -> None:
    async with relay_on(redis_url, tenant_tokens_day=RESERVED) as relay:
        outcomes: list[Any] = []
        for name in ("a", "a", "b", "a", "c"):
            try:
                outcomes.append(bool(await ask(relay, Tenant(name=name))))
            except FleetError as error:
                outcomes.append(error.code)

    assert outcomes == [True, "budget_spent", True, "budget_spent", True]


class Heard(RelayObserver):
    """What metrics would count."""

    def __init__(self) -> None:
        self.refused: list[tuple[str, str]] = []
        self.costs: list[tuple[str, float]] = []

    @override
    def on_refused(self, queue: str, scope: str) -> None:
        self.refused.append((queue, scope))

    @override
    def on_settled(self, tenant: str, cost: float) -> None:
        self.costs.append((tenant, cost))


async def test_refusals_and_costs_are_counted(redis_url: str) -> None:
    prices = {"m": ModelPrice(input=1000, output=1000)}
    async with relay_on(redis_url, prices=prices) as relay:
        relay.connection.observer = heard = Heard()
        tenant = Tenant(name="a", limit_tokens_day=RESERVED)
        await ask(relay, tenant)
        with pytest.raises(BudgetSpent):
            await ask(relay, tenant)
        await answer(relay, DONE)
        await Settlement(relay.connection).settle(5)

    assert heard.refused == [(QUEUE, "tokens_day")]
    assert heard.costs == [("a", 0.02)]


async def test_a_job_for_another_day_takes_nothing_of_today(redis_url: str) -> None:
    tenant = Tenant(name="a", limit_tokens_day=RESERVED)
    async with relay_on(redis_url) as relay:
        later = await ask(relay, tenant, in_s=86400)
        await ask(relay, tenant)
        for in_s in (86400, 0):
            with pytest.raises(BudgetSpent) as refused:
                await ask(relay, tenant, in_s=in_s)
            assert ("choose a not_before from 20" in refused.value.message) == (in_s > 0)
        await ask(relay, tenant, in_s=3 * 86400)
        await relay.queue.cancel(later, by="caller")
        await asyncio.sleep(0.3)  # as often as a process settles before it refuses
        again = await ask(relay, tenant, in_s=86400)

    assert again != later


async def test_a_job_for_later_counts_in_every_minute_around_its_time(redis_url: str) -> None:
    tenant = Tenant(name="a", limit_tokens_minute=2 * RESERVED)
    began = time.monotonic()
    async with relay_on(redis_url) as relay:
        for in_s in (600, 640, 700, 0, 0):
            await ask(relay, tenant, in_s=in_s)
        refused = []
        for in_s in (590, 600, 640, 670, 0):
            with pytest.raises(RateLimited) as error:
                await ask(relay, tenant, in_s=in_s)
            refused.append(error.value.retry_after_s or 0)
        await ask(relay, tenant, in_s=520)

    assert 700 - (time.monotonic() - began) <= refused[0] <= 710
    assert 55 <= refused[-1] <= 70


async def test_what_a_job_for_later_used_counts_on_its_day_and_leaves_no_reservation(
    redis_url: str,
) -> None:
    tenant = Tenant(name="a", limit_tokens_day=1000)
    async with relay_on(redis_url) as relay:
        job = await ask(relay, tenant, in_s=20)
        (before,) = (await TenantLimits(relay.connection).view([tenant]))[0].limits
        await relay.connection.command("ZADD", redis_keys.delayed(QUEUE), 1, job)
        await answer(relay, *words(2), DONE)
        fields = await relay.connection.command("HGETALL", redis_keys.spending("a"))
        planned = {name[:1] for name in fields} & {b"M", b"D", b"N"}
        used, (after,) = (
            await day(relay),
            (await TenantLimits(relay.connection).view([tenant]))[0].limits,
        )
        left = await relay.connection.command("HKEYS", redis_keys.spending("a"))

    assert planned == {b"M", b"D", b"N"}
    assert (used, before.used, after.used) == ((20, 0), RESERVED, 20)
    assert not {name[:1] for name in left} & {b"M", b"D", b"N"}
