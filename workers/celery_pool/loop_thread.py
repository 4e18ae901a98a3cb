"""A uvloop event loop in its own thread, with thread-safe calls."""

import asyncio
import concurrent.futures
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any, TypeVar

import uvloop
from celery.utils.log import get_logger

logger = get_logger(__name__)

T = TypeVar("T")


class LoopThread:
    """A loop and its thread; `on_crash` is called in it if the loop ends before `stop`."""

    def __init__(self, name: str, on_crash: Callable[[], None]) -> None:
        """Create the loop; `start` runs it."""
        self.loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._on_crash = on_crash
        self._stopping = False
        self._pinged_at = self._ponged_at = monotonic()
        self._warned = False

    def start(self) -> None:
        """Start the thread; earlier submissions run first."""
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            if not self._stopping:
                logger.critical("the asyncio loop ended before the worker: %r", sys.exception())
                self._on_crash()
            self.loop.close()

    def call(self, function: Callable[..., object], *args: object) -> None:
        """Schedule `function` on the loop; ignored once closed. Safe in signal handlers."""
        try:
            self.loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            if not self.loop.is_closed():
                raise

    def submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Start a coroutine on the loop; wait for its future with a timeout only."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def stop(self, timeout_s: float) -> bool:
        """Stop the loop; False if the thread is blocked and did not end in time."""
        self._stopping = True
        self.call(self.loop.stop)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def check(self, patience_s: float) -> None:
        """Ping the loop; log its stack, once, if it has not responded for `patience_s`."""
        now = monotonic()
        if self._ponged_at >= self._pinged_at:
            self._pinged_at, self._warned = now, False
            self.call(self._pong)
        elif now - self._pinged_at >= patience_s and not self._warned:
            self._warned = True
            logger.warning(
                "the asyncio loop has been blocked for %.1f s at\n%s",
                now - self._pinged_at,
                self.stack(),
            )

    def _pong(self) -> None:
        self._ponged_at = monotonic()

    def stack(self) -> str:
        """The stack trace of the thread, for the log."""
        return stack(self._thread)


def stack(thread: threading.Thread) -> str:
    """The stack trace of a thread, for the log."""
    frame = sys._current_frames().get(thread.ident or 0)  # noqa: SLF001 - no other way
    return "".join(traceback.format_stack(frame)) if frame else "(the thread has ended)"
