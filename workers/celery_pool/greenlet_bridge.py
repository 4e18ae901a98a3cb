"""Lets Celery's synchronous tracer run a task whose body is a coroutine.

Celery calls a task like any function: signals, request stack, retries and hooks surround a plain
call. Here that whole call runs in a greenlet on the loop's thread. When the coroutine inside waits,
the greenlet passes its awaitable to the asyncio task outside, and resumes when that is ready. So
the body can use both: `self.request` and `self.retry` of Celery, `asyncio.current_task`
and `asyncio.timeout` of the loop.
"""

import asyncio
import functools
import inspect
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, ParamSpec, TypeVar

from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded
from greenlet import getcurrent, greenlet

P = ParamSpec("P")
T = TypeVar("T")


class TracerGreenlet(greenlet):  # type: ignore[misc]
    """The stack on which Celery's tracer runs; its parent is the stack of the loop."""


class OutsidePoolError(RuntimeError):
    """A coroutine task was called where no asyncio pool runs it."""

    def __init__(self) -> None:
        super().__init__("coroutine tasks run only in workers.celery_pool.pool:AsyncioPool")


class SoftTimeLimitCancellation(SoftTimeLimitExceeded, asyncio.CancelledError):  # type: ignore[misc]
    """The soft time limit, as it enters the coroutine of a task.

    Also a cancellation: a task group or a `wait_for` that anything else interrupts leaves its
    children behind.
    """


@types.coroutine
def run_in_greenlet(
    function: Callable[[], T], on_cancel: Callable[[asyncio.CancelledError], BaseException]
) -> Generator[Any, Any, T]:
    """Call `function` in a greenlet, and wait outside of it for what it passes to `await_`.

    A cancellation enters the body as the exception that `on_cancel` makes of it.
    """
    loop_stack = getcurrent()
    tracer = TracerGreenlet(function, loop_stack)
    # A greenlet starts with empty context variables; the body must see those of its asyncio task.
    tracer.gr_context = loop_stack.gr_context
    outcome: Any = tracer.switch()
    while not tracer.dead:
        try:
            answer = yield outcome
        except asyncio.CancelledError as error:
            outcome = tracer.throw(on_cancel(error))
        except BaseException as error:  # noqa: BLE001 - whatever was waited for, the body decides
            outcome = tracer.throw(error)
        else:
            outcome = tracer.switch(answer)
    result: T = outcome
    return result


def await_(awaitable: Awaitable[T]) -> T:
    """Wait for `awaitable` in synchronous code that `run_in_greenlet` called.

    Raises `OutsidePoolError` anywhere else.
    """
    tracer = getcurrent()
    if not isinstance(tracer, TracerGreenlet) or tracer.parent is None:
        if inspect.iscoroutine(awaitable):
            awaitable.close()
        raise OutsidePoolError
    steps: Any = awaitable.__await__()
    resume, value = steps.send, None
    while True:
        try:
            waiting_for = resume(value)
        except StopIteration as end:
            result: T = end.value
            return result
        try:
            resume, value = steps.send, tracer.parent.switch(waiting_for)
        except BaseException as error:  # noqa: BLE001 - whatever was waited for, the body decides
            resume, value = steps.throw, error


def async_task(app: Celery, **options: Any) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], Any]:
    """Register a coroutine function as a Celery task; `options` are those of `app.task`.

        @async_task(app, name="fleet.ticket", bind=True)
        async def ticket(self, queue: str) -> None: ...

    Asyncio tasks that the body starts run outside of the greenlet: there `self.request` is empty.
    """

    def register(function: Callable[P, Coroutine[Any, Any, T]]) -> Any:
        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return await_(function(*args, **kwargs))
            except SoftTimeLimitCancellation as error:
                raise SoftTimeLimitExceeded(*error.args) from error

        # Celery checks the arguments of a call against the signature, without following wrappers.
        run.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
        return app.task(**options)(run)

    return register
