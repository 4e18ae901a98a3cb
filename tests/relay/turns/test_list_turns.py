"""Who reads lists waits for a turn: few of one tenant, few of all, and tenants in turn."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime

import pytest
from support.relay import Relay, relay_on

from contract import redis_keys
from contract.errors import RelayUnavailable
from contract.tenants import Tenant
from relay.batches import BatchStore
from relay.dead_letters import DeadLetterFilter, DeadLetters
from relay.files import Files
from relay.lists.scheduled_jobs import ScheduledJobs
from relay.scripts.id_prefixes import ids_with_prefix
from relay.turns.list_turns import MOST, MOST_OF_ONE, ListTurns, list_turns
from relay.usage.ledger import Ledger, UsageQuery
from relay.webhooks.delivery_queue import DeliveryQueue, QueueLimits
from relay.webhooks.receivers import Receiver

ANN = Tenant(name="ann")
TODAY = datetime.now(UTC).date()
READERS: dict[str, Callable[[Relay], Awaitable[object]]] = {
    "jobs": lambda relay: relay.records.page(visible_to=ANN, search="x"),
    "scheduled": lambda relay: ScheduledJobs(relay.connection, relay.records).page(
        visible_to=ANN, limit=1
    ),
    "dead": lambda relay: DeadLetters(relay.connection).page(DeadLetterFilter(ANN), limit=1),
    "groups": lambda relay: DeadLetters(relay.connection).groups(DeadLetterFilter(ANN)),
    "purge": lambda relay: DeadLetters(relay.connection).purge_all(DeadLetterFilter(ANN)),
    "usage": lambda relay: Ledger(relay.connection).read(UsageQuery(TODAY, TODAY, (), "ann")),
    "files": lambda relay: Files(relay.connection).page(ANN, limit=1),
    "batches": lambda relay: BatchStore(relay.connection).page(ANN, limit=1),
    "deliveries": lambda relay: DeliveryQueue(relay.connection, QueueLimits(1, 1)).ended(
        Receiver("ann", "w", "w")
    ),
}


@pytest.mark.parametrize("what", READERS)
async def test_whoever_reads_a_list_takes_a_turn_of_his_tenant(redis_url: str, what: str) -> None:
    async with relay_on(redis_url) as relay:
        async with AsyncExitStack() as held:
            for _ in range(MOST_OF_ONE):
                await held.enter_async_context(list_turns().turn("ann"))
            reading = asyncio.ensure_future(READERS[what](relay))
            done, _ = await asyncio.wait({reading}, timeout=0.2)

            assert not done
        await reading


async def test_a_prefix_is_looked_for_in_turn(redis_url: str) -> None:
    index = redis_keys.recent("ann")
    async with relay_on(redis_url) as relay:
        async with AsyncExitStack() as held:
            for _ in range(MOST_OF_ONE):
                await held.enter_async_context(list_turns().turn(index))
            reading = asyncio.ensure_future(ids_with_prefix(relay.connection, index, "abcd"))
            done, _ = await asyncio.wait({reading}, timeout=0.2)

            assert not done
        await reading


async def entered(turns: ListTurns, reader: str, order: list[str]) -> None:
    async with turns.turn(reader):
        order.append(reader)
        await asyncio.sleep(0)


async def test_one_list_of_another_tenant_does_not_wait_for_hundreds_of_the_first() -> None:
    turns, order = ListTurns(), list[str]()
    await asyncio.gather(
        *(entered(turns, "red", order) for _ in range(300)), entered(turns, "blue", order)
    )

    assert len(order) == 301
    assert order.index("blue") <= MOST_OF_ONE


async def test_tenants_take_turns_when_all_are_busy() -> None:
    turns, order = ListTurns(), list[str]()
    names = [f"tenant{number}" for number in range(MOST)]
    await asyncio.gather(
        *(entered(turns, name, order) for name in names for _ in range(100)),
        entered(turns, "last", order),
    )

    assert order.index("last") <= 3 * MOST


async def test_a_caller_who_leaves_while_it_waits_leaves_nothing_behind() -> None:
    turns, order = ListTurns(), list[str]()
    async with turns.turn("red"), turns.turn("red"):
        waiting = [asyncio.ensure_future(entered(turns, "red", order)) for _ in range(3)]
        await asyncio.sleep(0)
        for each in waiting:
            each.cancel()
        await asyncio.wait(waiting)
    await entered(turns, "red", order)

    assert order == ["red"]


async def test_a_caller_who_leaves_as_its_turn_comes_gives_it_to_the_next() -> None:
    turns, order = ListTurns(), list[str]()
    async with AsyncExitStack() as held:
        for _ in range(MOST_OF_ONE):
            await held.enter_async_context(turns.turn("red"))
        first = asyncio.ensure_future(entered(turns, "red", order))
        second = asyncio.ensure_future(entered(turns, "red", order))
        await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait({first, second})
    async with asyncio.timeout(1):
        await asyncio.gather(*(entered(turns, "red", order) for _ in range(5)))

    assert (first.cancelled(), len(order)) == (True, 6)


async def test_a_caller_who_waits_for_too_long_is_told_to_read_fewer_lists() -> None:
    turns, order = ListTurns(wait_s=0.05), list[str]()
    async with turns.turn("red"), turns.turn("red"):
        with pytest.raises(RelayUnavailable, match="read fewer at the same time") as refused:
            await entered(turns, "red", order)
        await entered(turns, "blue", order)
    await entered(turns, "red", order)

    assert (refused.value.retry_after_s, order) == (5.0, ["blue", "red"])
