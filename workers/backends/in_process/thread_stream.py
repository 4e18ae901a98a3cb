"""Carries items from a thread to the loop: in order, bounded, and either end may stop it."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Executor
from typing import Final, Generic, TypeVar, cast

Item = TypeVar("Item")

MOST_WAITING: Final = 64
"""Items that the thread may be ahead of who reads them."""
_END: Final = object()


class ThreadStream(Generic[Item]):
    """One use: `items` on the loop starts the producer in its thread, which calls `put`."""

    def __init__(self) -> None:
        """Nothing runs before `items` is read."""
        self._stopped = threading.Event()
        self._room = threading.Semaphore(MOST_WAITING)
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[object] = asyncio.Queue()

    @property
    def is_closed(self) -> bool:
        """Whether nobody listens any more."""
        return self._stopped.is_set()

    def put(self, item: Item) -> bool:
        """In the thread: hand over an item, when there is room. False: nobody listens, stop."""
        if self._stopped.is_set():
            return False
        self._room.acquire()
        if self._stopped.is_set():
            return False
        self._loop.call_soon_threadsafe(self._queue.put_nowait, item)
        return True

    async def items(
        self, produce: Callable[["ThreadStream[Item]"], None], thread: Executor
    ) -> AsyncGenerator[Item, None]:
        """What the producer puts; raises what it raises.

        However this ends, it returns only when the producer has: its model is free then.
        """
        producer = self._loop.run_in_executor(thread, produce, self)
        producer.add_done_callback(lambda _: self._queue.put_nowait(_END))
        try:
            while (item := await self._queue.get()) is not _END:
                self._room.release()
                yield cast("Item", item)
            await producer
        finally:
            self._stopped.set()
            self._room.release()
            await asyncio.wait({producer})
