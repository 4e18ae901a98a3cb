"""Room for what is large is handed out in order, and no key has all of it."""

import asyncio

import pytest

from relay.admission.byte_budget import ByteBudget


async def test_who_finds_no_room_waits_for_it() -> None:
    budget = ByteBudget(100, 5)
    await budget.take(80, "")
    waiting = [asyncio.create_task(budget.take(size, "")) for size in (50, 50, 10)]
    await asyncio.sleep(0)
    before = [each.done() for each in waiting]
    budget.give_back(80, "")
    await asyncio.gather(*waiting[:2])

    assert before == [False] * 3
    assert not waiting[2].done()
    assert budget.held_bytes == 100
    waiting[2].cancel()


async def test_a_body_larger_than_all_of_it_passes_alone() -> None:
    budget = ByteBudget(100, 5)
    await budget.take(500, "key")

    assert budget.held_bytes == 500


async def test_a_key_has_half_and_does_not_keep_others_waiting() -> None:
    budget = ByteBudget(100, 5)
    await budget.take(40, "one")
    second = asyncio.create_task(budget.take(40, "one"))
    await asyncio.sleep(0)
    await budget.take(40, "two")

    assert not second.done()
    budget.give_back(40, "one")
    await second
    assert budget.held_bytes == 80


async def test_who_leaves_takes_nothing_with_him() -> None:
    budget = ByteBudget(100, 0.01)
    await budget.take(100, "")
    with pytest.raises(TimeoutError):
        await budget.take(10, "")
    leaving = asyncio.create_task(budget.take(10, ""))
    await asyncio.sleep(0)
    budget.give_back(100, "")
    leaving.cancel()
    await asyncio.wait({leaving})

    assert budget.held_bytes == 0
