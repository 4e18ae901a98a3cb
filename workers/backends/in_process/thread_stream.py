"""A bounded stream of items from a thread to the event loop; either side may stop it."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Executor
from typing import Final, Generic, TypeVar, cast

Item = TypeVar("Item")

MAX_BUFFERED: Final = 64
"""Items that may wait for the reader."""
_END: Final = object()


class ThreadStream(Generic[Item]):
    """Single use: `items`, on the loop, starts the producer in its thread, which calls `put`."""

    def __init__(self) -> None:
        """The producer does not start before `items` is iterated."""
        self._stopped = threading.Event()
        self._room = threading.Semaphore(MAX_BUFFERED)
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[object] = asyncio.Queue()

    @property
    def is_closed(self) -> bool:
        """Whether the reader has closed the stream."""
        return self._stopped.is_set()

    def put(self, item: Item) -> bool:
        """In the thread: add an item, blocking while the buffer is full. False: closed, stop."""
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
        """Yield the items of the producer; raises its exception.

        Always waits for the producer to end, so that its model is free afterwards.
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
