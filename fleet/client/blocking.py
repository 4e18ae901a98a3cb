"""Synchronous methods made from asynchronous ones, so that each is written once.

    class Client(Blocking):
        models = waits(AsyncClient.models)
        chat = steps(AsyncClient.chat)

The results have the parameters, the docstrings and the types of the asynchronous methods.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial, wraps
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from anyio.from_thread import BlockingPortal

from fleet.client.window import Taken

Fields = ParamSpec("Fields")
Answer = TypeVar("Answer")
Item = TypeVar("Item")


class Blocking:
    """An object whose asynchronous sibling lives on the event loop behind a portal."""

    def __init__(self, portal: BlockingPortal, sibling: Any) -> None:
        """Call the methods of `sibling` through `portal`."""
        self._portal = portal
        self._sibling = sibling


def waits(
    ask: Callable[Concatenate[Any, Fields], Awaitable[Answer]],
) -> Callable[Concatenate[Any, Fields], Answer]:
    """The method as a synchronous one; raises what it raises."""

    @wraps(ask)
    def asked(self: Blocking, /, *args: Fields.args, **fields: Fields.kwargs) -> Answer:
        return self._portal.call(partial(_called, ask, self._sibling, *args, **fields))

    return asked


async def _called(ask: Callable[..., Awaitable[Answer]], /, *args: Any, **fields: Any) -> Answer:
    return await ask(*args, **fields)


def steps(
    ask: Callable[Concatenate[Any, Fields], AsyncGenerator[Item, None]],
) -> Callable[Concatenate[Any, Fields], Generator[Item, None, None]]:
    """The method as a synchronous generator; closing it closes the asynchronous one."""

    @wraps(ask)
    def taken(
        self: Blocking, /, *args: Fields.args, **fields: Fields.kwargs
    ) -> Generator[Item, None, None]:
        return items_of(self._portal, ask(self._sibling, *args, **fields))

    return taken


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
    """The items of an asynchronous generator; closing this generator closes that one."""
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
    """Like `window.in_order` or `as_done`; the items are read in the caller's thread.

    Their source, as a database cursor, may belong to that thread.
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
