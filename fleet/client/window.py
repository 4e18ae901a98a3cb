"""Work on a stream of items, a few at a time: answers in the order of the items, or as they come.

Items are taken from their source only as there is room, so that it may be longer than memory. What
their source raises comes after the answers to what it had given before.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Taken(Generic[Item]):
    """Items of a source up to its end, or to where it breaks: `check` raises that."""

    def __init__(self, items: Iterable[Item]) -> None:
        """Nothing is taken yet."""
        self._items = items
        self._error: Exception | None = None

    def __iter__(self) -> Iterator[Item]:
        """Take one after the other."""
        try:
            yield from self._items
        except Exception as error:  # noqa: BLE001 - raised by `check`, once the others are answered
            self._error = error

    def check(self) -> None:
        """Raise what the source did."""
        if self._error is not None:
            raise self._error


async def in_order(
    items: Iterable[Item], work: Callable[[Item], Awaitable[Answer]], width: int
) -> AsyncGenerator[Answer, None]:
    """Yield `work(item)` for each item in order, with at most `width` of them under way.

    The first that raises ends it; closing it early cancels what is under way.
    """
    waiting: deque[asyncio.Future[Answer]] = deque()
    taken = Taken(items)
    try:
        for item in taken:
            waiting.append(asyncio.ensure_future(work(item)))
            if len(waiting) >= width:
                yield await waiting.popleft()
        while waiting:
            yield await waiting.popleft()
        taken.check()
    finally:
        await _cancelled(waiting)


async def as_done(
    items: Iterable[Item], work: Callable[[Item], Awaitable[Answer]], width: int
) -> AsyncGenerator[Answer, None]:
    """Like `in_order`, with each answer as soon as it is there."""
    under_way: set[asyncio.Future[Answer]] = set()
    taken = Taken(items)
    try:
        for item in taken:
            under_way.add(asyncio.ensure_future(work(item)))
            if len(under_way) >= width:
                for task in await _ended(under_way):
                    yield task.result()
        while under_way:
            for task in await _ended(under_way):
                yield task.result()
        taken.check()
    finally:
        await _cancelled(under_way)


async def _ended(under_way: set[asyncio.Future[Answer]]) -> set[asyncio.Future[Answer]]:
    done, _ = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
    under_way -= done
    return done


async def _cancelled(tasks: Iterable[asyncio.Future[Answer]]) -> None:
    left = list(tasks)
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
