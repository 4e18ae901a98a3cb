"""Queues are woken when the delays of their jobs are over."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from contract.errors import RelayUnavailable
from workers.delayed_wakeups import DelayedWakeups


class Woken:
    """Records which queues were woken, and when."""

    def __init__(self) -> None:
        self.queues: list[str] = []
        self.times: list[float] = []
        self.fails = False

    async def __call__(self, queue: str) -> None:
        self.queues.append(queue)
        self.times.append(asyncio.get_running_loop().time())
        if self.fails:
            raise RelayUnavailable("gone")

    async def until(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.queues) < count:
                await asyncio.sleep(0.005)


@asynccontextmanager
async def running() -> AsyncIterator[tuple[DelayedWakeups, Woken]]:
    woken = Woken()
    wakeups = DelayedWakeups(woken)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(wakeups.run())
        yield wakeups, woken
        task.cancel()


async def test_queues_are_woken_in_the_order_of_their_delays_and_not_before() -> None:
    async with running() as (wakeups, woken):
        began = asyncio.get_running_loop().time()
        wakeups.set("late", 0.15)
        wakeups.set("soon", 0.05)
        await woken.until(2)

    assert woken.queues == ["soon", "late"]
    assert woken.times[0] - began >= 0.05
    assert woken.times[1] - began >= 0.15


async def test_jobs_that_are_due_together_wake_their_queue_once() -> None:
    async with running() as (wakeups, woken):
        for _ in range(1000):
            wakeups.set("busy", 0.02)
        wakeups.set("other", 0.2)
        await woken.until(2)

    assert woken.queues[-1] == "other"
    assert len(woken.queues) < 20


async def test_an_error_of_redis_does_not_end_the_loop() -> None:
    async with running() as (wakeups, woken):
        woken.fails = True
        wakeups.set("first", 0.0)
        await woken.until(1)
        wakeups.set("second", 0.0)
        await woken.until(2)

    assert woken.queues == ["first", "second"]
