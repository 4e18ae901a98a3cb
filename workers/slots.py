"""How many jobs of each queue a worker runs; a queue without a free slot is not consumed."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from workers.celery_pool.consumer import ConsumerControl


class Slots:
    """The slots of one worker, by queue.

    Tickets of a queue that is not consumed stay in Redis, where another worker can take them.
    """

    def __init__(
        self, capacity: Mapping[str, int], admits: Callable[[str], bool] = lambda _queue: True
    ) -> None:
        """Start with all slots free.

        `capacity` has the number of slots by queue; `admits` returns whether an endpoint of the
        backend takes one more job of a queue now.
        """
        self.capacity = dict(capacity)
        self.taken = dict.fromkeys(capacity, 0)
        self._admits = admits
        self._consumer: ConsumerControl | None = None

    def control(self, consumer: ConsumerControl) -> None:
        """Pause and resume the queues of this consumer from now on."""
        self._consumer = consumer
        self.settle()

    def is_free(self, queue: str) -> bool:
        """Return whether one more job of `queue` can run."""
        return self.taken.get(queue, 0) < self.capacity.get(queue, 0) and self._admits(queue)

    def settle(self, *queues: str) -> None:
        """Resume each of `queues` (all if none is given) that has a free slot, pause the others."""
        if self._consumer is None:
            return
        for queue in queues or self.capacity:
            if self.is_free(queue):
                self._consumer.resume(queue)
            else:
                self._consumer.pause(queue)

    @contextmanager
    def one(self, queue: str) -> Iterator[None]:
        """Hold one slot of `queue` while the block runs; the queue is paused while none is left."""
        self.taken[queue] += 1
        if not self.is_free(queue):
            self.settle(queue)
        try:
            yield
        finally:
            self.taken[queue] -= 1
            self.settle(queue)
