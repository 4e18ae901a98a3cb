"""Synchronous methods made from asynchronous ones, so that each is written once.

    class Client(Blocking):
        models = blocking_method(AsyncClient.models)
        chat = blocking_generator(AsyncClient.chat)

The results have the parameters, the docstrings and the types of the asynchronous methods.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial, wraps
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from anyio.from_thread import BlockingPortal

from fleet.client.window import SourceItems

Fields = ParamSpec("Fields")
Output = TypeVar("Output")
Item = TypeVar("Item")


class Blocking:
    """A synchronous wrapper of an asynchronous object, which runs on a portal's event loop."""

    def __init__(self, portal: BlockingPortal, sibling: Any) -> None:
        """Call the methods of `sibling` through `portal`."""
        self._portal = portal
        self._sibling = sibling


def blocking_method(
    method: Callable[Concatenate[Any, Fields], Awaitable[Output]],
) -> Callable[Concatenate[Any, Fields], Output]:
    """The synchronous form of an asynchronous method; raises what it raises."""

    @wraps(method)
    def blocking(self: Blocking, /, *args: Fields.args, **fields: Fields.kwargs) -> Output:
        return self._portal.call(partial(_call, method, self._sibling, *args, **fields))

    return blocking


async def _call(method: Callable[..., Awaitable[Output]], /, *args: Any, **fields: Any) -> Output:
    return await method(*args, **fields)


def blocking_generator(
    method: Callable[Concatenate[Any, Fields], AsyncGenerator[Item, None]],
) -> Callable[Concatenate[Any, Fields], Generator[Item, None, None]]:
    """The method as a synchronous generator; closing it closes the asynchronous one."""

    @wraps(method)
    def blocking(
        self: Blocking, /, *args: Fields.args, **fields: Fields.kwargs
    ) -> Generator[Item, None, None]:
        return items_of(self._portal, method(self._sibling, *args, **fields))

    return blocking


class _Pull(Generic[Item]):
    """Reads an asynchronous generator item by item; can be closed while it waits for one."""

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
        """Cancel a step that the caller's thread no longer waits for, then close the generator."""
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


def map_blocking(
    portal: BlockingPortal,
    items: Iterable[Item],
    work: Callable[[Item], Awaitable[Output]],
    width: int,
    *,
    ordered: bool,
) -> Generator[Output, None, None]:
    """Like `window.in_order` or `as_done`, but items are read in the caller's thread.

    Some sources may only be used there, as a database cursor.
    """
    waiting: deque[Future[Output]] = deque()
    source = SourceItems(items)
    try:
        for item in source:
            waiting.append(portal.start_task_soon(work, item))
            if len(waiting) >= width:
                yield _next(waiting, ordered=ordered).result()
        while waiting:
            yield _next(waiting, ordered=ordered).result()
        source.raise_error()
    finally:
        for future in waiting:
            future.cancel()
        wait(waiting)


def _next(waiting: deque[Future[Output]], *, ordered: bool) -> Future[Output]:
    if ordered:
        return waiting.popleft()
    done = next(iter(wait(waiting, return_when=FIRST_COMPLETED).done))
    waiting.remove(done)
    return done
