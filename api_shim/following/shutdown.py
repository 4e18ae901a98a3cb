"""Long-lived calls: they end when their client disconnects, or when this process shuts down.

Invariant: however a call ends, its work is cancelled and has ended before the call returns, so no
follower outlives its call. The work runs in the call's own task: a task more, and the wait for
either, cost 16 us a call.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from enum import Enum, auto
from typing import Any, Final

from starlette.types import Message, Receive

Watch = Callable[[Callable[[], None]], Callable[[], object]]
"""Calls its argument when the client has disconnected, until what it returns is called."""
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
        self._calls: set[_OpenCall] = set()
        self._is_shutting_down = False
        self._has_ended = asyncio.Event()
        self._has_ended.set()
        self.followed = 0
        """Open calls of clients."""

    def close(self) -> None:
        """End every open call, and every later one at once."""
        self._is_shutting_down = True
        for call in self._calls:
            call.end(CallEnding.SHUTDOWN)

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
        call = _OpenCall()
        self._calls.add(call)
        is_followed = receive is not _receive_forever
        self.followed += is_followed
        self._has_ended.clear()
        if self._is_shutting_down:
            call.end_soon(CallEnding.SHUTDOWN)
        stop_watching = _watch(receive, lambda: call.end(CallEnding.DISCONNECTED))
        try:
            await work
        except asyncio.CancelledError:
            if not call.absorbs_cancellation():
                raise
            return call.ending
        finally:
            call.is_over = True
            stop_watching()
            self._calls.discard(call)
            self.followed -= is_followed
            if not self._calls:
                self._has_ended.set()
        return CallEnding.FINISHED


class _OpenCall:
    """The work of one call, done by the current task, which is cancelled to end it early.

    It counts cancellations as `asyncio.timeout` does, so that one of somebody else passes.
    """

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker: a coroutine runs
        self._task = task
        self._cancellations = task.cancelling()
        self.ending = CallEnding.FINISHED
        self.is_over = False

    def end(self, ending: CallEnding) -> None:
        """Cancel the work, unless it is done or was cancelled before."""
        if not self.is_over and self.ending is CallEnding.FINISHED:
            self.ending = ending
            self._task.cancel()

    def end_soon(self, ending: CallEnding) -> None:
        """The same, after the work's first step."""
        asyncio.get_running_loop().call_soon(self.end, ending)

    def absorbs_cancellation(self) -> bool:
        """Whether it was `end` that cancelled, and nobody else."""
        was_ended = self.ending is not CallEnding.FINISHED
        return was_ended and self._task.uncancel() <= self._cancellations


def _watch(receive: Receive, on_disconnect: Callable[[], None]) -> Callable[[], object]:
    """Call `on_disconnect` once the client has disconnected; returns what ends that.

    A `receive` that can watch by itself (api_shim/http/ordinary_call.py) needs no task.
    """
    watch: Watch | None = getattr(receive, "watch", None)
    if watch is not None:
        return watch(on_disconnect)
    watching = asyncio.create_task(_wait_for_disconnect(receive))

    def received(task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            # What the server raises here is a connection that it has lost.
            task.exception()
            on_disconnect()

    watching.add_done_callback(received)
    return watching.cancel


async def _receive_forever() -> Message:
    """An ASGI `receive` for work without a client; cancelled with the work."""
    silence: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
    return await silence


async def _wait_for_disconnect(receive: Receive) -> None:
    """Return when the client has disconnected; messages before that are ignored."""
    while not (await receive())["type"].endswith(".disconnect"):
        pass
