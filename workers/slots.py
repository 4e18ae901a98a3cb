"""How many jobs of a kind the backend takes at once, and how many it has."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from workers.celery_pool.consumer import ConsumerControl


class Slots:
    """The slots of one worker, by queue; a queue without a free one is not consumed.

    Tickets stay in Redis then, where another worker can take them.
    """

    def __init__(self, capacity: Mapping[str, int]) -> None:
        """Begin with all slots free; `capacity` is by queue."""
        self.capacity = dict(capacity)
        self.taken = dict.fromkeys(capacity, 0)
        self.admits: Callable[[str], bool] = lambda _queue: True
        """Whether an endpoint of the backend takes one more job of a queue now."""
        self.intake: ConsumerControl | None = None

    def is_free(self, queue: str) -> bool:
        """Whether one more job of that queue fits."""
        return self.taken.get(queue, 0) < self.capacity.get(queue, 0) and self.admits(queue)

    def settle(self, *queues: str) -> None:
        """Consume these queues (else all) while they have a free slot, and not otherwise."""
        if self.intake is None:
            return
        for queue in queues or self.capacity:
            if self.is_free(queue):
                self.intake.resume(queue)
            else:
                self.intake.pause(queue)

    @contextmanager
    def one(self, queue: str) -> Iterator[None]:
        """Take a slot, and stop consuming the queue while none is left."""
        self.taken[queue] += 1
        if not self.is_free(queue):
            self.settle(queue)
        try:
            yield
        finally:
            self.taken[queue] -= 1
            self.settle(queue)
