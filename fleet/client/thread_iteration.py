"""What a loop does elsewhere, taken an item at a time by a thread that has no loop."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, Generic, TypeVar

from anyio.from_thread import BlockingPortal

from fleet.client.window import Taken

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class _Pull(Generic[Item]):
    """Takes one item at a time from an asynchronous generator, and can stop while it waits."""

    def __init__(self, stream: AsyncGenerator[Item, None]) -> None:
        self._stream = stream
        self._step: asyncio.Task[Any] | None = None

    async def step(self) -> tuple[Item] | None:
        """The next item in a tuple, or None at the end."""
        self._step = asyncio.current_task()
        try:
            return (await anext(self._stream),)
        except StopAsyncIteration:
            return None

    async def close(self) -> None:
        """End a step that was interrupted from outside, then the generator."""
        if self._step is not None and not self._step.done():
            self._step.cancel()
            await asyncio.wait([self._step])
        await self._stream.aclose()


def items_of(
    portal: BlockingPortal, stream: AsyncGenerator[Item, None]
) -> Generator[Item, None, None]:
    """The items of an asynchronous generator; closing this one early closes that one."""
    pull = _Pull(stream)
    try:
        while (item := portal.call(pull.step)) is not None:
            yield item[0]
    finally:
        portal.call(pull.close)


def walk(
    portal: BlockingPortal,
    items: Iterable[Item],
    work: Callable[[Item], Awaitable[Answer]],
    width: int,
    *,
    ordered: bool,
) -> Generator[Answer, None, None]:
    """Like `window.in_order` or `as_done`; the items are taken by the caller's own thread.

    A cursor of a database, or whatever else is read, may belong to that thread.
    """
    waiting: deque[Future[Answer]] = deque()
    taken = Taken(items)
    try:
        for item in taken:
            waiting.append(portal.start_task_soon(work, item))
            if len(waiting) >= width:
                yield _next(waiting, ordered=ordered).result()
        while waiting:
            yield _next(waiting, ordered=ordered).result()
        taken.check()
    finally:
        for future in waiting:
            future.cancel()
        wait(waiting)


def _next(waiting: deque[Future[Answer]], *, ordered: bool) -> Future[Answer]:
    if ordered:
        return waiting.popleft()
    done = next(iter(wait(waiting, return_when=FIRST_COMPLETED).done))
    waiting.remove(done)
    return done
