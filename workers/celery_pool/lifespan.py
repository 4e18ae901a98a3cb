"""The application's context in a worker: entered before the first task, left after the last."""

import asyncio
import concurrent.futures
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from celery.utils.log import get_logger

from workers.celery_pool.loop_thread import LoopThread

logger = get_logger(__name__)

CANCEL_TIMEOUT_S = 2.0


class Lifespan:
    """Holds one asynchronous context open on the loop from `enter` to `leave`.

    `on_crash` is called on the loop's thread if the context ends before `leave`.
    """

    def __init__(
        self,
        thread: LoopThread,
        context: AbstractAsyncContextManager[Any],
        on_crash: Callable[[], None],
    ) -> None:
        """Keep `context` for `enter`."""
        self._thread = thread
        self._context = context
        self._on_crash = on_crash
        self._leaving = asyncio.Event()
        self._entered: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._running: concurrent.futures.Future[None] = concurrent.futures.Future()

    async def _run(self) -> None:
        async with self._context:
            self._entered.set_result(None)
            await self._leaving.wait()

    def enter(self, timeout_s: float) -> None:
        """Open the context; what it raises, or TimeoutError, is raised here."""
        self._running = self._thread.submit(self._run())
        concurrent.futures.wait(
            {self._running, self._entered}, timeout_s, concurrent.futures.FIRST_COMPLETED
        )
        if self._running.done():
            self._running.result()
        if not self._entered.done():
            self._running.cancel()
            message = f"the application's lifespan was not entered within {timeout_s:g} s"
            raise TimeoutError(message)
        self._running.add_done_callback(self._ended)

    def leave(self, timeout_s: float) -> None:
        """Close the context, and cancel it where it does not close in time."""
        self._thread.call(self._leaving.set)
        if not self._ends_within(timeout_s):
            logger.error("the application's lifespan did not end within %g s", timeout_s)
            self._running.cancel()
            self._ends_within(CANCEL_TIMEOUT_S)

    def _ends_within(self, timeout_s: float) -> bool:
        return bool(concurrent.futures.wait({self._running}, timeout_s).done)

    def _ended(self, life: concurrent.futures.Future[None]) -> None:
        error = None if life.cancelled() else life.exception()
        if error is not None:
            logger.critical("the application's lifespan failed", exc_info=error)
        if not self._leaving.is_set():
            self._on_crash()
