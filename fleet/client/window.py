"""Concurrent work on a stream of items, with bounded width: results in order, or as they complete.

Items are read from their source only when there is room, so it may be larger than memory. An
exception of the source is raised after the results of the items before it.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Taken(Generic[Item]):
    """Items of a source up to its end or its exception, which `check` raises."""

    def __init__(self, items: Iterable[Item]) -> None:
        """Read nothing yet."""
        self._items = items
        self._error: Exception | None = None

    def __iter__(self) -> Iterator[Item]:
        """Yield the items."""
        try:
            yield from self._items
        except Exception as error:  # noqa: BLE001 - raised by `check`, once the others are answered
            self._error = error

    def check(self) -> None:
        """Raise the exception of the source, if there was one."""
        if self._error is not None:
            raise self._error


async def in_order(
    items: Iterable[Item], work: Callable[[Item], Awaitable[Answer]], width: int
) -> AsyncGenerator[Answer, None]:
    """Yield `work(item)` for each item in order, with at most `width` running.

    The first exception ends it; closing it early cancels the running ones.
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
    """Like `in_order`, but yield each result as soon as it is complete."""
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
