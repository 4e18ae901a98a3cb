"""Methods of asynchronous classes, for a thread without a loop: they stay written once, over there.

    class Client(Blocking):
        models = waits(AsyncClient.models)
        chat = steps(AsyncClient.chat)

What comes out has the parameters, the words and the types of its sibling.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from anyio.from_thread import BlockingPortal

from fleet.client.thread_iteration import items_of

Fields = ParamSpec("Fields")
Answer = TypeVar("Answer")
Item = TypeVar("Item")


class Blocking:
    """Something asynchronous, which lives on the loop behind a portal."""

    def __init__(self, portal: BlockingPortal, sibling: Any) -> None:
        """Ask `sibling` there."""
        self._portal = portal
        self._sibling = sibling


def waits(
    ask: Callable[Concatenate[Any, Fields], Awaitable[Answer]],
) -> Callable[Concatenate[Any, Fields], Answer]:
    """The method as one that returns when its answer is there."""

    @wraps(ask)
    def asked(self: Blocking, /, *args: Fields.args, **fields: Fields.kwargs) -> Answer:
        return self._portal.call(partial(_called, ask, self._sibling, *args, **fields))

    return asked


async def _called(ask: Callable[..., Awaitable[Answer]], /, *args: Any, **fields: Any) -> Answer:
    return await ask(*args, **fields)


def steps(
    ask: Callable[Concatenate[Any, Fields], AsyncGenerator[Item, None]],
) -> Callable[Concatenate[Any, Fields], Generator[Item, None, None]]:
    """The method as a plain generator; closing that early closes the one behind it."""

    @wraps(ask)
    def taken(
        self: Blocking, /, *args: Fields.args, **fields: Fields.kwargs
    ) -> Generator[Item, None, None]:
        return items_of(self._portal, ask(self._sibling, *args, **fields))

    return taken
