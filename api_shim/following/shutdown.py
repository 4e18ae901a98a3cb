"""Calls that stay open: they end when their caller leaves, or when this process is told to stop.

Invariant: whatever ends a call, its work is cancelled and awaited before the call returns, so a
follower never outlives its subscriber.
"""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from enum import Enum, auto
from typing import Any, Final

from starlette.types import Message, Receive

_WRITE_S: Final = 0.01
"""For what a call says after its work was cancelled."""


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
        self._has_ended = asyncio.Event()
        self._has_ended.set()

    def __call__(self) -> None:
        """End every open call, and every later one at once."""
        self._is_over = True
        for call in self._calls:
            if not call.done():
                call.set_result(None)

    async def until_ended(self, within_s: float) -> None:
        """Wait until the calls that were ended have returned, at most so many seconds.

        Each then sends its own last words (a close code, a 503): once the server stops, it cuts
        connections with words of its own.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._has_ended.wait()
        await asyncio.sleep(_WRITE_S)

    @property
    def is_over(self) -> bool:
        """Whether this process is about to exit."""
        return self._is_over

    async def complete(self, work: Coroutine[Any, Any, None]) -> bool:
        """Run the work. Returns True when it is done, False if the process stops before."""
        return await self.attend(work, _never) is CallEnding.FINISHED

    async def attend(self, work: Coroutine[Any, Any, None], receive: Receive) -> CallEnding:
        """Run the work until it is done, its caller is gone or the process stops."""
        stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._calls.add(stop)
        self._has_ended.clear()
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
            working.cancel()
            leaving.cancel()
            await asyncio.gather(working, leaving, return_exceptions=True)
            self._calls.discard(stop)
            if not self._calls:
                self._has_ended.set()


async def _never() -> Message:
    """A caller of whom nothing is heard; cancelled with the work."""
    silence: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
    return await silence


async def _gone(receive: Receive) -> None:
    """Return when the caller has disconnected; what they say before is ignored."""
    while not (await receive())["type"].endswith(".disconnect"):
        pass
