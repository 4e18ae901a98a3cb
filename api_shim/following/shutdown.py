"""Long-lived calls: they end when their client disconnects, or when this process shuts down.

Invariant: however a call ends, its work is cancelled and awaited before the call returns, so no
follower outlives its call.
"""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from enum import Enum, auto
from typing import Any, Final

from starlette.types import Message, Receive

_FLUSH_S: Final = 0.01
"""Seconds for what a call sends after its work was cancelled."""


class CallEnding(Enum):
    """Why a call has ended."""

    FINISHED = auto()
    DISCONNECTED = auto()
    """The client has disconnected."""
    SHUTDOWN = auto()
    """This process is about to exit; the client may reconnect to another one."""


class OpenCalls:
    """Every open call of this process, and the way to end them all."""

    def __init__(self) -> None:
        """No call is open."""
        self._calls: set[asyncio.Future[None]] = set()
        self._is_shutting_down = False
        self._has_ended = asyncio.Event()
        self._has_ended.set()
        self.followed = 0
        """Open calls of clients."""

    def close(self) -> None:
        """End every open call, and every later one at once."""
        self._is_shutting_down = True
        for call in self._calls:
            if not call.done():
                call.set_result(None)

    async def wait_closed(self, within_s: float) -> None:
        """Wait until the calls that were ended have returned, for at most `within_s` seconds.

        Each can then send its own end (a close code, a 503) before the server closes its
        connection.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._has_ended.wait()
        await asyncio.sleep(_FLUSH_S)

    @property
    def is_shutting_down(self) -> bool:
        """Whether this process is about to exit."""
        return self._is_shutting_down

    async def complete(self, work: Coroutine[Any, Any, None]) -> bool:
        """Run the work. Returns True when it is done, False if the process shuts down before."""
        return await self.run(work, _receive_forever) is CallEnding.FINISHED

    async def run(self, work: Coroutine[Any, Any, None], receive: Receive) -> CallEnding:
        """Run the work until it is done, its client disconnects or the process shuts down."""
        stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._calls.add(stop)
        is_followed = receive is not _receive_forever
        self.followed += is_followed
        self._has_ended.clear()
        if self._is_shutting_down:
            stop.set_result(None)
        work_task = asyncio.create_task(work)
        disconnect_task = asyncio.create_task(_wait_for_disconnect(receive))
        try:
            await asyncio.wait(
                {work_task, disconnect_task, stop}, return_when=asyncio.FIRST_COMPLETED
            )
            if work_task.done():
                work_task.result()
                return CallEnding.FINISHED
            return CallEnding.DISCONNECTED if disconnect_task.done() else CallEnding.SHUTDOWN
        finally:
            work_task.cancel()
            disconnect_task.cancel()
            await asyncio.gather(work_task, disconnect_task, return_exceptions=True)
            self._calls.discard(stop)
            self.followed -= is_followed
            if not self._calls:
                self._has_ended.set()


async def _receive_forever() -> Message:
    """An ASGI `receive` for work without a client; cancelled with the work."""
    silence: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
    return await silence


async def _wait_for_disconnect(receive: Receive) -> None:
    """Return when the client has disconnected; messages before that are ignored."""
    while not (await receive())["type"].endswith(".disconnect"):
        pass
