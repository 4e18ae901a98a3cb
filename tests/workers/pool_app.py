"""The Celery app that the tests of the pool run in real worker processes.

Every task writes what happens to it into lists of the test's server, where the test waits for it.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from celery import Celery, Task, signals
from celery.exceptions import SoftTimeLimitExceeded
from kombu.asynchronous import get_event_loop
from redis import Redis

from workers.celery_pool.consumer import ConsumerControl
from workers.celery_pool.greenlet_bridge import async_task
from workers.celery_pool.pool import AsyncioPool

SERVER = os.environ["POOL_TEST_SERVER"]
LIFESPAN = os.environ.get("POOL_TEST_LIFESPAN", "journal_lifespan")

journal = Redis.from_url(SERVER, decode_responses=True, socket_timeout=None)
app = Celery("pool_app", broker=SERVER, backend=SERVER)
app.conf.update(
    worker_disable_prefetch=True,
    worker_consumer="workers.celery_pool.consumer:PausingConsumer",
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    task_default_queue="main",
    fleet_lifespan=f"{__name__}:{LIFESPAN}",
    fleet_drain_timeout_s=float(os.environ.get("POOL_TEST_DRAIN_TIMEOUT_S", "60")),
)
if "POOL_TEST_POOL" in os.environ:
    app.conf.worker_pool = os.environ["POOL_TEST_POOL"]
gate = asyncio.Event()
intake: list[ConsumerControl] = []


class HurriedPool(AsyncioPool):
    """The pool, with less patience."""

    cancel_timeout_s = 0.3
    leave_timeout_s = 0.3
    join_timeout_s = 0.3
    crash_timeout_s = 3.0


def push(name: str, word: object) -> None:
    """Append `word` to the list `name`."""
    journal.rpush(name, str(word))


@asynccontextmanager
async def journal_lifespan(pool: AsyncioPool) -> AsyncIterator[None]:
    """Report the begin, the drain of the worker, and the end."""
    assert asyncio.get_running_loop() is pool.loop

    async def report_drain() -> None:
        await pool.draining.wait()
        push("lifespan", "draining")

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(report_drain())
        push("lifespan", "entered")
        yield
        await asyncio.sleep(0)
        push("lifespan", "left")


@asynccontextmanager
async def failing_lifespan(_pool: AsyncioPool) -> AsyncIterator[None]:
    """Fail before the first task."""
    message = "no backend"
    raise RuntimeError(message)
    yield


@asynccontextmanager
async def crashing_lifespan(_pool: AsyncioPool) -> AsyncIterator[None]:
    """Fail while tasks run, if the test requests it."""

    async def fail_on_word() -> None:
        await asyncio.to_thread(journal.blpop, "crash", 20)
        message = "the lease keeper died"
        raise RuntimeError(message)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(fail_on_word())
        yield


@asynccontextmanager
async def crashing_lifespan_of_a_stuck_worker(pool: AsyncioPool) -> AsyncIterator[None]:
    """Fail while the main thread waits for something that does not come."""

    def wait_for_nothing() -> None:
        push("main", "stuck")
        time.sleep(3600)

    async with crashing_lifespan(pool):
        get_event_loop().call_later(0, wait_for_nothing)
        yield


@asynccontextmanager
async def exiting_lifespan(_pool: AsyncioPool) -> AsyncIterator[None]:
    """Take the whole loop down, if the test requests it."""

    async def exit_on_word() -> None:
        await asyncio.to_thread(journal.blpop, "crash", 20)
        raise SystemExit

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(exit_on_word())
        yield


@asynccontextmanager
async def stuck_lifespan(_pool: AsyncioPool) -> AsyncIterator[None]:
    """Refuse to end."""
    push("lifespan", "entered")
    yield
    await asyncio.sleep(3600)


@async_task(app, name="echo")
async def echo(word: str) -> str:
    """Return `word` after one turn of the loop."""
    await asyncio.sleep(0)
    return word


@async_task(app, name="wait")
async def wait(name: str, seconds: float = 3600) -> str:
    """Tell that it started, sleep, and tell how that ended."""
    push(name, "started")
    try:
        await asyncio.sleep(seconds)
    except SoftTimeLimitExceeded:
        push(name, "soft limit")
        raise
    except asyncio.CancelledError:
        push(name, "cancelled")
        raise
    finally:
        push(name, "finally")
    push(name, "finished")
    return "slept"


@async_task(app, name="wait_in_group")
async def wait_in_group(name: str) -> None:
    """Sleep in a child task, which a time limit must end too."""

    async def child() -> None:
        push(name, "started")
        try:
            await asyncio.sleep(3600)
        finally:
            push(name, "child ended")

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(child())


async def wait_for_end(name: str) -> None:
    """Wait until the test pushes a word to the list `name:end`."""
    while journal.lpop(f"{name}:end") is None:
        await asyncio.sleep(0.02)


@async_task(app, name="wait_for_word")
async def wait_for_word(name: str) -> None:
    """Report the start, and end when the test pushes to `name:end`."""
    push(name, "started")
    await wait_for_end(name)
    push(name, "finished")


@async_task(app, name="late", acks_late=True)
async def late(name: str) -> None:
    """Do the same, acknowledged at the end."""
    push(name, "started")
    await wait_for_end(name)


@async_task(app, name="fail", bind=True)
async def fail(self: Any) -> None:
    """Fail as a coroutine does."""
    await asyncio.sleep(0)
    message = f"failed as {self.name}"
    raise ValueError(message)


@async_task(app, name="try_again", bind=True, max_retries=3)
async def try_again(self: Any, name: str) -> int:
    """Retry twice, then return the number of retries."""
    await asyncio.sleep(0)
    push(name, f"attempt {self.request.retries} of {self.request.id}")
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    return int(self.request.retries)


class Hooked(Task):  # type: ignore[misc]
    """A task whose hooks report."""

    def on_success(self, retval: str, *_: object) -> None:
        push(retval, "on_success")

    def on_failure(self, exc: Exception, *_: object) -> None:
        push(str(exc), "on_failure")


@async_task(app, name="hooked", bind=True, base=Hooked)
async def hooked(self: Any, name: str, *, good: bool) -> str:
    """Succeed or fail, with hooks and signals around it that report."""
    await asyncio.sleep(0)
    push(name, f"body of {self.request.id}")
    if not good:
        raise ValueError(name)
    return name


@async_task(app, name="cancel_itself")
async def cancel_itself() -> None:
    """End by a cancellation that Celery did not request."""
    raise asyncio.CancelledError


@async_task(app, name="exit")
async def exit_() -> None:
    """Try to take the worker down."""
    raise SystemExit(7)


@async_task(app, name="meet")
async def meet(name: str, number: int) -> None:
    """End only when `number` of these run at the same time."""
    if journal.incr(f"{name}:present") == number:
        gate.set()
    await gate.wait()
    journal.incr(f"{name}:met")


@async_task(app, name="block")
async def block(name: str, seconds: float) -> None:
    """Block the loop, as no coroutine should."""
    push(name, "started")
    time.sleep(seconds)  # noqa: ASYNC251


@app.task(name="plain")
def plain(word: str) -> str:
    """Run an ordinary task."""
    return word


@app.task(name="steer")
def steer(verb: str, queue: str) -> None:
    """Pause or resume a queue from the loop's thread."""
    getattr(intake[0], verb)(queue)


@signals.task_prerun.connect
def _tell_prerun(task: Any, args: Any, **_: object) -> None:
    if task.name == "hooked":
        push(args[0], "prerun")


@signals.task_postrun.connect
def _tell_postrun(task: Any, args: Any, state: str, **_: object) -> None:
    if task.name == "hooked":
        push(args[0], f"postrun {state}")


@signals.task_failure.connect
def _tell_failure(sender: Any, args: Any, **_: object) -> None:
    if sender.name == "hooked":
        push(args[0], "failure")


@signals.worker_ready.connect
def _tell_ready(sender: Any, **_: object) -> None:
    intake.append(ConsumerControl(sender))
    push("worker", "ready")


@async_task(app, name="tally")
async def tally(name: str, number: int) -> None:
    """Tell a number."""
    push(name, number)
