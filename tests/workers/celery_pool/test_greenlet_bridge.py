"""The bridge alone: synchronous code that waits for coroutines on a loop."""

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from typing import TypeVar

import pytest

from workers.celery_pool.greenlet_bridge import OutsidePoolError, await_, run_in_greenlet

T = TypeVar("T")

colour: ContextVar[str] = ContextVar("colour", default="none")


def unchanged(error: asyncio.CancelledError) -> BaseException:
    return error


async def bridged(function: Callable[[], T]) -> T:
    return await run_in_greenlet(function, unchanged)


def run(function: Callable[[], T]) -> T:
    return asyncio.run(bridged(function))


async def double(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


def test_synchronous_code_waits_for_coroutines() -> None:
    assert run(lambda: await_(double(1)) + await_(double(2))) == 6


def test_two_calls_take_turns() -> None:
    turns: list[str] = []

    async def take(name: str) -> None:
        for _ in range(2):
            turns.append(name)
            await asyncio.sleep(0)

    async def both() -> None:
        await asyncio.gather(*(bridged(lambda name=name: await_(take(name))) for name in "ab"))

    asyncio.run(both())

    assert turns == ["a", "b", "a", "b"]


def test_an_exception_passes_through_both_ways() -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise KeyError("inside")

    def recover() -> str:
        try:
            await_(fail())
        except KeyError as error:
            return f"caught {error.args[0]}"
        return "nothing"

    assert run(recover) == "caught inside"


def test_a_timeout_works_inside_of_the_body() -> None:
    async def hurry() -> str:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(3600)
        except TimeoutError:
            return "too slow"
        return "slept"

    assert run(lambda: await_(hurry())) == "too slow"


def test_context_variables_are_those_of_the_asyncio_task() -> None:
    async def paint() -> str:
        before = colour.get()
        colour.set("blue")
        await asyncio.sleep(0)
        return f"{before}, {colour.get()}"

    async def main() -> str:
        colour.set("red")
        return await bridged(lambda: await_(paint()))

    assert asyncio.run(main()) == "red, blue"


def test_a_cancellation_enters_as_what_it_is_made_into() -> None:
    async def main() -> str:
        def body() -> str:
            try:
                return await_(asyncio.sleep(3600, "slept"))
            except TimeoutError:
                return "out of time"

        async def call() -> str:
            return await run_in_greenlet(body, lambda _: TimeoutError())

        task = asyncio.create_task(call())
        await asyncio.sleep(0)
        task.cancel()
        return await task

    assert asyncio.run(main()) == "out of time"


def test_a_coroutine_task_outside_of_the_pool_raises_an_explanation() -> None:
    with pytest.raises(OutsidePoolError, match="AsyncioPool"):
        await_(double(1))
