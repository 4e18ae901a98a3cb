"""Concurrent work on a stream of items, with bounded width: results in order, or as they complete.

Items are read from their source only when there is room, so it may be larger than memory. An
exception of the source is raised after the results of the items before it.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")
Output = TypeVar("Output")


class SourceItems(Generic[Item]):
    """Items of a source up to its end or its exception, which `raise_error` raises later."""

    def __init__(self, items: Iterable[Item]) -> None:
        """Nothing is read before the iteration."""
        self._items = items
        self._error: Exception | None = None

    def __iter__(self) -> Iterator[Item]:
        """Yield the items."""
        try:
            yield from self._items
        except Exception as error:  # noqa: BLE001 - raised by `raise_error`, after the results
            self._error = error

    def raise_error(self) -> None:
        """Raise the exception of the source, if there was one."""
        if self._error is not None:
            raise self._error


async def in_order(
    items: Iterable[Item], work: Callable[[Item], Awaitable[Output]], width: int
) -> AsyncGenerator[Output, None]:
    """Yield `work(item)` for each item in order, with at most `width` running.

    The first exception ends it; closing it early cancels the running ones.
    """
    waiting: deque[asyncio.Future[Output]] = deque()
    source = SourceItems(items)
    try:
        for item in source:
            waiting.append(asyncio.ensure_future(work(item)))
            if len(waiting) >= width:
                yield await waiting.popleft()
        while waiting:
            yield await waiting.popleft()
        source.raise_error()
    finally:
        await _cancelled(waiting)


async def as_done(
    items: Iterable[Item], work: Callable[[Item], Awaitable[Output]], width: int
) -> AsyncGenerator[Output, None]:
    """Like `in_order`, but yield each result as soon as it is complete."""
    under_way: set[asyncio.Future[Output]] = set()
    source = SourceItems(items)
    try:
        for item in source:
            under_way.add(asyncio.ensure_future(work(item)))
            if len(under_way) >= width:
                for task in await _ended(under_way):
                    yield task.result()
        while under_way:
            for task in await _ended(under_way):
                yield task.result()
        source.raise_error()
    finally:
        await _cancelled(under_way)


async def _ended(under_way: set[asyncio.Future[Output]]) -> set[asyncio.Future[Output]]:
    done, _ = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
    under_way -= done
    return done


async def _cancelled(tasks: Iterable[asyncio.Future[Output]]) -> None:
    left = list(tasks)
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
