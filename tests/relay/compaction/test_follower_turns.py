"""Work that many followers would do at the same time is spread over turns of the event loop."""

import asyncio

from relay.compaction.follower_turns import in_turn


async def test_few_of_many_go_on_in_one_turn() -> None:
    turn, went_on = 0, list[int]()

    async def follower() -> None:
        await in_turn()
        went_on.append(turn)

    following = [asyncio.create_task(follower()) for _ in range(40)]
    while not all(each.done() for each in following):
        await asyncio.sleep(0)
        turn += 1

    assert len(went_on) == 40
    assert max(went_on.count(each) for each in set(went_on)) <= 8


async def test_who_is_cancelled_keeps_nobody_waiting() -> None:
    waiting = [asyncio.create_task(in_turn()) for _ in range(20)]
    await asyncio.sleep(0)
    for each in waiting[:10]:
        each.cancel()

    async with asyncio.timeout(5):
        await asyncio.gather(*waiting[10:])
        await in_turn()
    assert all(each.cancelled() for each in waiting[:10])
