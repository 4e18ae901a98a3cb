"""One Celery task while the pool runs it: its coroutine, its time limits, its one outcome.

The coroutine and its timers live on the loop's thread. Celery's request may be touched on the hub's
thread only, so every report to it is posted there, in order, and `disowned` is read and written
there only.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from billiard.einfo import ExceptionInfo
from celery.exceptions import Terminated, WorkerLostError
from celery.utils.log import get_logger

from workers.celery_pool.greenlet_bridge import SoftTimeLimitCancellation, run_in_greenlet
from workers.celery_pool.loop_thread import LoopThread

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Reports:
    """The callbacks of Celery's request; each is called on the hub's thread."""

    on_result: Callable[[Any], None]
    on_error: Callable[[Any], None]
    on_timeout: Callable[[bool, float], None]


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """Seconds until the soft limit is raised in the body, and until it is cancelled; or None."""

    soft_s: float | None
    hard_s: float | None


class Execution:
    """The handle that Celery's request keeps, weakly, to end its task early."""

    def __init__(
        self,
        *,
        number: int,
        call: Callable[[], Any],
        limits: TimeLimits,
        reports: Reports,
        thread: LoopThread,
        post: Callable[[Callable[[], None]], None],
        on_finished: Callable[["Execution"], None],
    ) -> None:
        """Keep the parts for `start`."""
        self.number = number
        self._call = call
        self._limits = limits
        self._reports = reports
        self._thread = thread
        self._post = post
        self._on_finished = on_finished
        self._disowned = False
        self._soft_limit_due = False
        self._timers: list[asyncio.TimerHandle] = []
        self._task: asyncio.Task[Any] | None = None

    def terminate(self, _signal: object = None) -> None:
        """Cancel the coroutine and report nothing: the caller reports the outcome."""
        self._disowned = True
        self._thread.call(self._cancel)

    def start(self) -> None:
        """Start the coroutine; on the loop's thread, before any `terminate` arrives there."""
        self._task = self._thread.loop.create_task(self._run(), name=f"celery-{self.number}")
        self._task.add_done_callback(self._finished)

    async def _run(self) -> Any:
        loop, limits = self._thread.loop, self._limits
        if limits.soft_s:
            self._timers.append(loop.call_later(limits.soft_s, self._reach_soft_limit))
        if limits.hard_s:
            self._timers.append(loop.call_later(limits.hard_s, self._reach_hard_limit))
        try:
            return await run_in_greenlet(self._call, self._interruption)
        except (SystemExit, KeyboardInterrupt) as error:
            # Asyncio would end the whole loop with these.
            raise WorkerLostError(repr(error)) from error

    def _interruption(self, error: asyncio.CancelledError) -> BaseException:
        if not self._soft_limit_due or self._task is None:
            return error
        self._soft_limit_due = False
        self._task.uncancel()
        return SoftTimeLimitCancellation(self._limits.soft_s)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _reach_soft_limit(self) -> None:
        self._soft_limit_due = True
        self._post(lambda: self._report_timeout(soft=True))
        self._cancel()

    def _reach_hard_limit(self) -> None:
        self._soft_limit_due = False
        self._post(lambda: self._report_timeout(soft=False))
        self._cancel()

    def _report_timeout(self, *, soft: bool) -> None:
        if self._disowned:
            return
        self._disowned = not soft
        limit_s = self._limits.soft_s if soft else self._limits.hard_s
        self._reports.on_timeout(soft, limit_s or 0.0)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        for timer in self._timers:
            timer.cancel()
        if task.cancelled():
            # Celery reports a task that ended so as revoked.
            error: BaseException | None = Terminated("the coroutine was cancelled")
        else:
            error = task.exception()
        if error is None:
            result = task.result()
            self._post(lambda: self._conclude(self._reports.on_result, result))
            return
        if not task.cancelled():
            logger.error("task crashed outside of Celery's tracer", exc_info=error)
        info = _describe(error)
        self._post(lambda: self._conclude(self._reports.on_error, info))

    def _conclude(self, report: Callable[[Any], None], outcome: object) -> None:
        self._on_finished(self)
        if not self._disowned:
            report(outcome)


def _describe(error: BaseException) -> ExceptionInfo:
    try:
        raise error
    except BaseException:  # noqa: BLE001 - billiard describes only what has a traceback
        return ExceptionInfo()
