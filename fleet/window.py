"""Work on a stream of items, a few at a time, with answers in the order of the items."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


async def in_order(
    items: Iterable[Item], work: Callable[[Item], Awaitable[Answer]], width: int
) -> AsyncGenerator[Answer, None]:
    """Yield `work(item)` for each item in order, with at most `width` of them under way.

    The first that raises ends it; closing it early cancels what is under way.
    """
    waiting: deque[asyncio.Future[Answer]] = deque()
    try:
        for item in items:
            waiting.append(asyncio.ensure_future(work(item)))
            if len(waiting) >= width:
                yield await waiting.popleft()
        while waiting:
            yield await waiting.popleft()
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
