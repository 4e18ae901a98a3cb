"""Celery worker pool that runs every task as a coroutine on one uvloop loop.

    CELERY_CUSTOM_WORKER_POOL=workers.pool:AsyncioPool celery -A ... worker -P custom -c 1000

Two threads: the main thread runs Celery's hub (broker, acknowledgements, remote control), the other
the loop (tasks, and the application's lifespan around them). All state of the pool belongs to the
hub's thread; the loop posts to it. See docs/adr/0002-asyncio-pool.md.
"""

import asyncio
import functools
import itertools
import logging
import os
import queue
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from time import monotonic
from typing import Any

from celery import signals
from celery.concurrency.base import BasePool

# Runs only the acknowledgements that Celery queued, while the hub is stopped.
from celery.concurrency.prefork import _run_ready_callbacks
from celery.exceptions import ImproperlyConfigured
from celery.platforms import EX_FAILURE
from celery.utils.functional import noop
from celery.utils.log import get_logger
from celery.worker import state as worker_state
from kombu.asynchronous import get_event_loop
from kombu.utils.imports import symbol_by_name

from workers.celery_pool.execution import Execution, Reports, TimeLimits
from workers.celery_pool.lifespan import Lifespan
from workers.celery_pool.loop_thread import LoopThread, stack

logger = get_logger(__name__)


@asynccontextmanager
async def empty_lifespan(_pool: "AsyncioPool") -> AsyncIterator[None]:
    """The default lifespan."""
    yield


class AsyncioPool(BasePool):  # type: ignore[misc]
    """The pool; the application's lifespan receives it.

    `app.conf.fleet_lifespan`, a callable or its dotted name, takes the pool and returns an
    asynchronous context manager; it is entered on the loop before the first task and left after
    the last. `draining` is set, on the loop, by the first request to stop the worker, `hurrying`
    by the second one. `app.conf.fleet_drain_timeout_s` bounds the wait for running tasks at a warm
    shutdown, `retire_timeout_s` that of a worker that retires.
    """

    watch_interval_s = 0.5
    blocked_after_s = 1.0
    enter_timeout_s = 30.0
    drain_timeout_s = 600.0
    retire_timeout_s = 7 * 86400.0
    cancel_timeout_s = 5.0
    leave_timeout_s = 10.0
    join_timeout_s = 5.0
    crash_timeout_s = 30.0
    quiet_turn_s = 0.05

    signal_safe = False
    body_can_be_buffer = True

    is_retiring = False
    loop: asyncio.AbstractEventLoop
    draining: asyncio.Event
    hurrying: asyncio.Event

    def on_start(self) -> None:
        """Start the loop and enter the application's lifespan; an error there ends the worker."""
        self._hub = self._require_hub()
        self._running: dict[int, Execution] = {}
        self._numbers = itertools.count(1)
        self._posts: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._hub_usable = True
        self._crashed = self._stopped = False
        self._last_resort = threading.Timer(self.crash_timeout_s, self._exit)
        self._last_resort.daemon = True
        self._thread = LoopThread("asyncio-pool", self._on_crash)
        self.loop = self._thread.loop
        self.draining = asyncio.Event()
        self.hurrying = asyncio.Event()
        self._lifespan = Lifespan(self._thread, self._open_lifespan(), self._on_crash)
        self._thread.start()
        try:
            self._lifespan.enter(self.enter_timeout_s)
        except BaseException:
            self._thread.stop(self.join_timeout_s)
            raise
        signals.worker_shutting_down.connect(self._on_shutting_down)
        self._watch = self._hub.call_repeatedly(
            self.watch_interval_s, self._thread.check, self.blocked_after_s
        )

    def _require_hub(self) -> Any:
        hub = get_event_loop()
        if hub is None:
            message = "the asyncio pool needs a broker transport with an event loop, such as redis"
            raise ImproperlyConfigured(message)
        if not self.app.conf.worker_disable_prefetch:
            # Tasks are acknowledged early, so the broker's prefetch count does not hold them back.
            message = "the asyncio pool needs worker_disable_prefetch to bound what a worker takes"
            raise ImproperlyConfigured(message)
        return hub

    def _open_lifespan(self) -> AbstractAsyncContextManager[Any]:
        factory = symbol_by_name(  # type: ignore[no-untyped-call]
            self.app.conf.get("fleet_lifespan") or empty_lifespan
        )
        context: AbstractAsyncContextManager[Any] = factory(self)
        return context

    def on_apply(
        self,
        target: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        callback: Callable[[Any], None] = noop,
        error_callback: Callable[[Any], None] = noop,
        accept_callback: Callable[[int, float], None] = noop,
        timeout_callback: Callable[[bool, float], None] = noop,
        soft_timeout: float | None = None,
        timeout: float | None = None,
        **_: object,
    ) -> Execution | None:
        """Start a task; None while the worker ends, which leaves the message unacknowledged."""
        if self._crashed or self._state != self.RUN:
            return None
        execution = Execution(
            number=next(self._numbers),
            call=functools.partial(target, *args, **kwargs),
            limits=TimeLimits(
                soft_timeout or self.options.get("soft_timeout"),
                timeout or self.options.get("timeout"),
            ),
            reports=Reports(callback, error_callback, timeout_callback),
            thread=self._thread,
            post=self._post,
            on_finished=self._forget,
        )
        self._running[execution.number] = execution
        self._thread.call(execution.start)
        accept_callback(execution.number, monotonic())
        return execution

    def _forget(self, execution: Execution) -> None:
        self._running.pop(execution.number, None)

    def terminate_job(self, pid: int, signal: object = None) -> None:
        """Cancel one task by the number that `accept_callback` gave as its process id."""
        if execution := self._running.get(pid):
            execution.terminate(signal)

    def grow(self, n: int = 1) -> None:
        """Run `n` more tasks concurrently."""
        self.limit += n

    def shrink(self, n: int = 1) -> None:
        """Run `n` fewer tasks concurrently; running tasks continue."""
        if n >= self.limit:
            message = f"cannot shrink a pool of {self.limit} by {n}"
            raise ValueError(message)
        self.limit -= n

    def _get_info(self) -> dict[str, Any]:
        return {**super()._get_info(), "running": len(self._running)}

    # From the loop's thread to the hub's.

    def _post(self, function: Callable[[], None]) -> None:
        self._posts.put(function)
        self._hub.call_soon(self._deliver)

    def _deliver(self) -> None:
        while not self._posts.empty():
            self._guard(self._posts.get())

    def _guard(self, function: Callable[[], None]) -> None:
        try:
            function()
        except Exception:
            logger.exception("the report of a task failed")

    # The end.

    def _on_shutting_down(self, **_: object) -> None:
        # A signal handler: it may interrupt the hub while that holds its lock, so the way back to
        # the hub, which may sleep for seconds, is through the loop's thread.
        self._thread.call(self._start_draining_or_hurry)

    def _start_draining_or_hurry(self) -> None:
        if self.draining.is_set():
            self.hurrying.set()
        self._start_draining()

    def _start_draining(self) -> None:
        self.draining.set()
        self._hub.call_soon(noop)

    def retire(self) -> None:
        """Let running tasks end, however long they take, at the stop that is requested next."""
        self.is_retiring = True

    def on_close(self) -> None:
        """Start draining on a shutdown without a signal."""
        self._thread.call(self._start_draining)

    def _on_crash(self) -> None:
        if not self._crashed:
            self._last_resort.start()
        self._crashed = True
        if worker_state.should_stop is None:
            worker_state.should_stop = EX_FAILURE
        self._start_draining()
        self._post(self._cancel_all)

    def _exit(self) -> None:
        logger.critical(
            "the pool failed, and the main thread did not exit in %g s; it is at\n%s",
            self.crash_timeout_s,
            stack(threading.main_thread()),
        )
        logging.shutdown()  # writes what was logged, within a bound
        os._exit(EX_FAILURE)

    def on_stop(self) -> None:
        """Wait for the tasks, then leave the lifespan and end the loop. Every step is bounded.

        Celery calls it at a warm shutdown, and at a cold one inside of the signal handler, which
        may interrupt the former.
        """
        if not (self._crashed or self._is_cold()):
            timeout_s = self._stop_timeout_s()
            self._wait_for_tasks(timeout_s)
            if self._running:
                logger.error("%d tasks did not end in %g s", len(self._running), timeout_s)
        self.on_terminate()

    def _stop_timeout_s(self) -> float:
        if self.is_retiring:
            return self.retire_timeout_s
        return self.app.conf.get("fleet_drain_timeout_s") or self.drain_timeout_s

    def on_terminate(self) -> None:
        """Cancel what runs, then leave the lifespan and end the loop. Every step is bounded."""
        # Celery announces a cold shutdown only after it stopped the pool.
        self.on_close()
        self._deliver()
        self._cancel_all()
        self._wait_for_tasks(self.cancel_timeout_s)
        if not self._stopped:
            self._stopped = True
            self._end_loop()

    def _is_cold(self) -> bool:
        return worker_state.should_terminate not in {None, False}

    def _cancel_all(self) -> None:
        for execution in list(self._running.values()):
            execution.terminate()

    def _wait_for_tasks(self, timeout_s: float) -> None:
        give_up_at = monotonic() + timeout_s
        while self._running and monotonic() < give_up_at:
            self._turn()

    def _turn(self) -> None:
        # The consumer is cancelled but a message may be on its way: the hub hands it back.
        if self._hub_usable and not self._is_cold():
            try:
                self._hub.run_once()
            except Exception:
                logger.exception("the hub failed while tasks were ending")
                self._hub_usable = False
        else:
            with suppress(queue.Empty):
                self._guard(self._posts.get(timeout=self.quiet_turn_s))
            _run_ready_callbacks(self._hub)

    def _end_loop(self) -> None:
        if self._running:
            logger.error("%d tasks did not obey their cancellation", len(self._running))
        self._watch.cancel()
        self._lifespan.leave(self.leave_timeout_s)
        if not self._thread.stop(self.join_timeout_s):
            logger.error("the asyncio loop did not stop; it is at\n%s", self._thread.stack())
        self._deliver()
        _run_ready_callbacks(self._hub)
