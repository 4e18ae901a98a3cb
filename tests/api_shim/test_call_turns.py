"""How many calls begin in one turn of the event loop."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from api_shim.call_turns import CallTurns


async def test_a_burst_begins_a_few_at_a_time_in_order_and_others_get_on_between() -> None:
    turns, begun, seen = CallTurns(), list[int](), list[int]()

    async def call(number: int) -> None:
        await turns.begin("a")
        begun.append(number)

    async def other() -> None:
        while len(begun) < 30:
            seen.append(len(begun))
            await asyncio.sleep(0)

    async with asyncio.timeout(5):
        await asyncio.gather(*(call(number) for number in range(30)), other())

    assert begun == list(range(30))
    steps = [b - a for a, b in zip(seen, [*seen[1:], len(begun)], strict=True)]
    assert max(steps) <= 8
    assert seen[0] <= 8


async def test_a_caller_that_leaves_while_it_waits_takes_nobody_s_turn() -> None:
    turns, begun = CallTurns(), list[int]()

    async def call(number: int) -> None:
        await turns.begin("a")
        begun.append(number)

    calls = [asyncio.create_task(call(number)) for number in range(20)]
    await asyncio.sleep(0)
    for leaving in calls[8:16]:
        leaving.cancel()
    async with asyncio.timeout(5):
        await asyncio.gather(*calls, return_exceptions=True)

    assert begun == [*range(8), *range(16, 20)]


async def test_a_call_of_another_tenant_does_not_wait_for_all_of_the_first() -> None:
    turns, begun = CallTurns(), list[str]()

    async def call(caller: str) -> None:
        await turns.begin(caller)
        begun.append(caller)

    async with asyncio.timeout(5):
        await asyncio.gather(*(call(name) for name in [*["a"] * 100, "b", *["c"] * 3]))

    assert begun.index("b") <= 16
    assert [at for at, name in enumerate(begun) if name == "c"][-1] <= 32
    assert len(begun) == 104


async def test_calls_that_come_one_after_the_other_never_wait() -> None:
    turns, waited = CallTurns(), 0
    for _ in range(50):
        waited += await steps(turns.begin("a"))
        await asyncio.sleep(0)

    assert waited == 0


async def steps(work: Coroutine[Any, Any, None]) -> int:
    """How often a coroutine suspends."""
    count = 0
    awaitable = work.__await__()
    for _ in awaitable:
        count += 1
        await asyncio.sleep(0)
    return count
