"""The slots of a worker: how many jobs of each queue it runs, and which wait for a next job.

A queue without a free slot is not consumed. When a job ends and no other waits, the Celery task
that ran it stays for a second (docs/adr/0035): a job that is enqueued meanwhile wakes it through
Redis's pub/sub, so that a busy queue pays for Celery once and not for each job. A slot that waits
is free: a ticket may take it, and then the wake-up is not needed.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, Never

from contract.errors import RelayUnavailable
from contract.redis_keys import wake_channel
from relay.claims import Claim, Claims, assigned
from relay.subscriber import Subscriber, Subscription
from relay.tickets import ticket
from telemetry.repeated_warnings import RepeatedWarnings
from workers.celery_pool.consumer import ConsumerControl

_log = logging.getLogger(__name__)
_repeated = RepeatedWarnings(_log)

_WAIT_S: Final = 1.0
_SILENCE_S: Final = 60.0
_RESUBSCRIBE_S: Final = 1.0
_MOST_MESSAGES: Final = 65536
"""More than a worker has slots: an assignment that is dropped costs the time of a lease."""

Waiter = asyncio.Future[bool]


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
        return self.is_served(queue) and self._has_room(queue)

    def _has_room(self, queue: str) -> bool:
        return self.taken.get(queue, 0) < self.capacity.get(queue, 0) and self._admits(queue)

    def is_served(self, queue: str) -> bool:
        """Return whether jobs of `queue` may run: no operator has cancelled its consumer."""
        return self._consumer is None or not self._consumer.is_cancelled(queue)

    def settle(self, *queues: str) -> None:
        """Resume each of `queues` (all if none is given) that has a free slot, pause the others."""
        if self._consumer is None:
            return
        # Whether an operator has cancelled the queue is the consumer's own: a queue that is paused
        # for that as well would stay so after `add_consumer`.
        for queue in queues or self.capacity:
            if self._has_room(queue):
                self._consumer.resume(queue)
            else:
                self._consumer.pause(queue)

    def begin(self, queue: str) -> bool:
        """Have Celery begin a task for `queue`, as a ticket would; False if no slot is free."""
        if self._consumer is None or not self.is_free(queue):
            return False
        self._consumer.deliver(queue, ticket(queue))
        return True

    @contextmanager
    def one(self, queue: str) -> Iterator[None]:
        """Hold one slot of `queue` while the block runs; the queue is paused while none is left."""
        self.taken[queue] += 1
        if not self._has_room(queue):
            self.settle(queue)
        try:
            yield
        finally:
            was_free = self._has_room(queue)
            self.taken[queue] -= 1
            if not was_free:
                self.settle(queue)


class IdleSlots:
    """The slots of one worker that wait for a wake-up."""

    def __init__(self, worker: str, claims: Claims, slots: Slots, subscriber: Subscriber) -> None:
        """Wait through `subscriber` once `listen` runs; before, no slot waits."""
        self._worker = worker
        self._claims = claims
        self._slots = slots
        self._subscriber = subscriber
        self.on_assigned: Callable[[Claim], None] = lambda _claim: None
        """Called with each job that Redis has leased to this worker for a new client."""
        self._waiting: dict[str, deque[Waiter]] = {}
        self._is_listening = self._is_closed = False

    def with_this(self, queue: str) -> int:
        """How many slots of a queue wait if one that is taken now does, too; 0 if it may not.

        One slot is left to tickets: Celery takes none while every slot has a task.
        """
        if not self._may_wait(queue, self._slots.taken.get(queue, 0)):
            return 0
        return len(self._waiting.get(queue, ())) + 1

    def _may_wait(self, queue: str, taken: int) -> bool:
        is_room = len(self._waiting.get(queue, ())) + taken < self._slots.capacity.get(queue, 0)
        return self._is_listening and is_room and self._slots.is_served(queue)

    async def wait(self, queue: str) -> bool:
        """Wait for a job of a queue, for a second; returns whether one may have come.

        The slot that waits is not taken any more.
        """
        if not self._may_wait(queue, self._slots.taken.get(queue, 0) + 1):
            return False
        waiting = self._waiting.setdefault(queue, deque())
        waiter: Waiter = asyncio.get_running_loop().create_future()
        waiting.append(waiter)
        timer = asyncio.get_running_loop().call_later(_WAIT_S, _expire, waiter)
        try:
            return await waiter
        finally:
            timer.cancel()
            if waiter in waiting:
                waiting.remove(waiter)
                await self._report(queue, len(waiting))

    async def _report(self, queue: str, count: int) -> None:
        try:
            await self._claims.set_idle_slots(queue, self._worker, count)
        except RelayUnavailable as error:
            _repeated.warn("idle slots of %s are not reported: %s", queue, error)

    async def listen(self) -> Never:
        """Wake slots as jobs come, until cancelled."""
        while True:
            try:
                async with self._subscriber.subscribe(
                    wake_channel(self._worker), buffered=_MOST_MESSAGES
                ) as subscription:
                    await self._wake_as_jobs_come(subscription)
            except RelayUnavailable as error:
                _repeated.warn("wake-ups are not received: %s", error)
                await asyncio.sleep(_RESUBSCRIBE_S)
            finally:
                self._is_listening = False

    async def _wake_as_jobs_come(self, subscription: Subscription) -> Never:
        while True:
            if subscription.behind:
                subscription.catch_up()
                self.wake_all()
            self._is_listening = not self._is_closed
            await subscription.wait(_SILENCE_S)
            for message in subscription.take():
                await self._obey(message)

    async def _obey(self, message: bytes) -> None:
        channel = wake_channel(self._worker)
        try:
            work = assigned(message, self._worker)
        except ValueError as error:
            _repeated.warn("%s: a message is passed over: %s", channel, error, about=channel)
            return
        queue = work.queue if isinstance(work, Claim) else work
        if queue not in self._slots.capacity:
            _repeated.warn(
                "%s: a message is passed over: no queue %r", channel, queue[:64], about=channel
            )
        elif isinstance(work, Claim):
            self.on_assigned(work)
        elif not (self._wake(work) or self._begin(work)):
            await self._claims.give_ticket_back(work)

    def _wake(self, queue: str) -> bool:
        """Wake the slot of a queue that has waited least; returns False if none waits."""
        waiting = self._waiting.get(queue) if self._slots.is_served(queue) else None
        while waiting:
            waiter = waiting.pop()
            if not waiter.done():
                waiter.set_result(True)
                return True
        return False

    def _begin(self, queue: str) -> bool:
        """Begin a task for a queue whose job prefers this worker; False if it may not."""
        return not self._is_closed and self._slots.begin(queue)

    def wake_all(self) -> None:
        """Have all slots look for jobs: a wake-up may have been lost."""
        for queue in self._waiting:
            while self._wake(queue):
                pass

    def close(self) -> None:
        """End every wait, and let no slot wait from now on: the worker stops."""
        self._is_closed, self._is_listening = True, False
        for waiting in self._waiting.values():
            for waiter in waiting:
                _expire(waiter)


def _expire(waiter: Waiter) -> None:
    if not waiter.done():
        waiter.set_result(False)
