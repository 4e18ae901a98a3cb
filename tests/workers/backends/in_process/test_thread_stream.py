"""A stream from a thread: items are in order, and closing it stops the thread."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing

import pytest

from workers.backends.in_process.thread_stream import MAX_BUFFERED, ThreadStream


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


async def test_all_items_are_yielded_in_order(thread: ThreadPoolExecutor) -> None:
    def count(feed: ThreadStream[int]) -> None:
        for number in range(1000):
            feed.put(number)

    assert [number async for number in ThreadStream[int]().items(count, thread)] == list(
        range(1000)
    )


async def test_the_exception_of_the_thread_is_raised_after_its_items(
    thread: ThreadPoolExecutor,
) -> None:
    received: list[int] = []

    def fail(feed: ThreadStream[int]) -> None:
        feed.put(1)
        raise ValueError("two")

    items = ThreadStream[int]().items(fail, thread)
    received.append(await anext(items))
    with pytest.raises(ValueError, match="two"):
        await anext(items)
    assert received == [1]


async def test_the_thread_is_never_far_ahead(thread: ThreadPoolExecutor) -> None:
    sent: list[int] = []

    def talk(feed: ThreadStream[int]) -> None:
        while feed.put(len(sent)):
            sent.append(len(sent))

    async with aclosing(ThreadStream[int]().items(talk, thread)) as items:
        await anext(items)
        while len(sent) < MAX_BUFFERED:
            await asyncio.sleep(0)

    assert len(sent) <= MAX_BUFFERED + 1


async def test_after_the_close_put_returns_false_without_blocking(
    thread: ThreadPoolExecutor,
) -> None:
    def producer(feed: ThreadStream[int]) -> None:
        while feed.put(1):
            pass
        for _ in range(2 * MAX_BUFFERED):
            assert not feed.put(2)

    async with asyncio.timeout(5):
        async with aclosing(ThreadStream[int]().items(producer, thread)) as items:
            assert await anext(items) == 1
