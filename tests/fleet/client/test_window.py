"""Answers come in order, however the work ends, and never more than so many at once."""

import asyncio
from contextlib import aclosing

import pytest

from fleet.client.window import in_order


async def test_answers_come_in_the_order_of_the_items() -> None:
    async def slow_first(item: int) -> int:
        for _ in range(10 - item):
            await asyncio.sleep(0)
        return item

    assert [item async for item in in_order(range(10), slow_first, 4)] == list(range(10))


async def test_no_more_than_so_many_are_under_way() -> None:
    running: set[int] = set()
    most = 0

    async def work(item: int) -> int:
        nonlocal most
        running.add(item)
        most = max(most, len(running))
        await asyncio.sleep(0)
        running.remove(item)
        return item

    assert len([item async for item in in_order(range(20), work, 3)]) == 20
    assert most == 3


async def test_closing_it_cancels_what_is_under_way() -> None:
    cancelled = []

    async def work(item: int) -> int:
        try:
            if item:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(item)
            raise
        return item

    async with aclosing(in_order(range(3), work, 3)) as answers:
        assert await anext(answers) == 0

    assert cancelled == [1, 2]


async def test_the_first_failure_ends_it() -> None:
    async def work(item: int) -> int:
        if item == 1:
            raise ValueError("one")
        return item

    with pytest.raises(ValueError, match="one"):
        _ = [item async for item in in_order(range(5), work, 2)]
