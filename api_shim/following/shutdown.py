"""Calls that stay open: they end when their caller leaves, or when this process is told to stop.

Invariant: whatever ends a call, its work is cancelled and awaited before the call returns, so a
follower never outlives its subscriber.
"""

import asyncio
from collections.abc import Coroutine
from enum import Enum, auto
from typing import Any

from starlette.types import Receive


class CallEnding(Enum):
    """Why a call is over."""

    FINISHED = auto()
    GONE = auto()
    """The caller has left."""
    STOPPING = auto()
    """This process is about to exit; the caller may come back to another one."""


class OpenCalls:
    """Every open call of this process, and the way to end them all."""

    def __init__(self) -> None:
        """Begin with no calls."""
        self._calls: set[asyncio.Future[None]] = set()
        self._is_over = False

    def __call__(self) -> None:
        """End every open call, and every later one at once."""
        self._is_over = True
        for call in self._calls:
            if not call.done():
                call.set_result(None)

    @property
    def is_over(self) -> bool:
        """Whether this process is about to exit."""
        return self._is_over

    async def attend(self, work: Coroutine[Any, Any, None], receive: Receive) -> CallEnding:
        """Run the work until it is done, its caller is gone or the process stops."""
        stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._calls.add(stop)
        if self._is_over:
            stop.set_result(None)
        working = asyncio.create_task(work)
        leaving = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait({working, leaving, stop}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
                return CallEnding.FINISHED
            return CallEnding.GONE if leaving.done() else CallEnding.STOPPING
        finally:
            self._calls.discard(stop)
            working.cancel()
            leaving.cancel()
            await asyncio.gather(working, leaving, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    """Return when the caller has disconnected; what they say before is ignored."""
    while not (await receive())["type"].endswith(".disconnect"):
        pass
