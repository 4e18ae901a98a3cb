"""Counts executions in the worker and tells the client when a round is complete.

A queue keeps no result here and no caller waits for a single task: that is the least that each of
them can do. The time is from the first enqueue to the last execution.
"""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import redis

URL: Final = os.environ.get("BENCH_REDIS_URL", "redis://127.0.0.1:6379/0")
KEY: Final = "bench:done"
AT_ONCE: Final = 64
_WITHIN_S: Final = 60


class Countdown:
    """How many tasks this worker process has run of the round."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._count = 0

    def ran(self, total: int) -> None:
        """One more; the last of a round tells the client."""
        self._count += 1
        if self._count == total:
            self._count = 0
            client().rpush(KEY, total)


def client() -> redis.Redis:
    """A connection of our own."""
    return redis.Redis.from_url(URL, socket_timeout=_WITHIN_S + 5)


def wait(began: float, total: int) -> None:
    """Print tasks a second once the worker has run them all; ends with 1 if it does not."""
    if client().blpop([KEY], timeout=_WITHIN_S) is None:
        sys.exit(f"{total} tasks were not done within {_WITHIN_S} s")
    print(total / (time.perf_counter() - began))


async def enqueued(enqueue: Callable[[int], Awaitable[Any]], total: int) -> float:
    """Enqueue a round, some at once; when it began."""
    await enqueue(1)
    client().blpop([KEY], timeout=_WITHIN_S)
    left = iter(range(total))

    async def caller() -> None:
        for _ in left:
            await enqueue(total)

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
    return began
