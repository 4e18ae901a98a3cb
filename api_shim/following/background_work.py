"""What a shim does besides requests: loops that go on after a defect, until the process ends.

Each piece of work is a coroutine. It is cancelled with its context, and has ended when that closes.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final

from telemetry.repeated_warnings import RepeatedWarnings

_repeated = RepeatedWarnings(logging.getLogger(__name__))

_RESTART_S: Final = 2.0
"""Before a loop that broke is started again."""


async def restart_on_defect(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run it until it returns, and again after what it could not read or a defect has ended it.

    Otherwise one damaged value would end every task of a process that goes on listening.
    """
    while True:
        doing = asyncio.create_task(work())
        try:
            await asyncio.wait({doing})
        finally:
            await cancelled([doing])
        if (defect := doing.exception()) is None:
            return
        name = getattr(work, "__qualname__", "a loop")
        _repeated.error("%s broke, and is started again", name, exc_info=defect)
        await asyncio.sleep(_RESTART_S)


@asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncGenerator[None]:
    """Run it for as long as this context is open; an error of it ends the context."""
    async with asyncio.TaskGroup() as group:
        doing = group.create_task(work)
        try:
            yield
        finally:
            doing.cancel()


async def cancelled(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel the tasks, and wait until each has ended; what they raise is dropped."""
    ending = list(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)
