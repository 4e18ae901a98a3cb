"""Pauses and resumes the queues of a running worker, from any thread.

A queue is consumed unless it is paused, because no slot is free, or cancelled, because an operator
said so (`celery control cancel_consumer`, `add_consumer`). Neither undoes the other.
"""

from typing import Any

from celery.worker.consumer import Consumer
from typing_extensions import override


class PausingConsumer(Consumer):  # type: ignore[misc]
    """For `worker_consumer`: Celery's consumer, which knows why a queue is not consumed."""

    @override
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Consume every queue at first."""
        self.paused: set[str] = set()
        """Queues without a free slot; changed by `ConsumerControl` on any thread."""
        self.cancelled: set[str] = set()
        """Queues that an operator has cancelled."""
        super().__init__(*args, **kwargs)

    @override
    def add_task_queue(self, queue: str, *args: Any, **options: Any) -> None:
        """Handle an operator's `add_consumer`."""
        self.cancelled.discard(queue)
        if queue not in self.paused:
            super().add_task_queue(queue, *args, **options)

    @override
    def cancel_task_queue(self, queue: str) -> None:
        """Handle an operator's `cancel_consumer`."""
        self.cancelled.add(queue)
        super().cancel_task_queue(queue)

    def settle(self, queue: str) -> None:
        """Consume a queue or not, as it should be now; on the hub's thread."""
        wanted = queue not in self.paused and queue not in self.cancelled
        queues = self.app.amqp.queues
        if (queue in queues.consume_from) is wanted:
            return
        if self.task_consumer is None:
            select = queues.select_add if wanted else queues.deselect
            select(queue)
        elif wanted:
            super().add_task_queue(queue)
        else:
            super().cancel_task_queue(queue)

    def deliver(self, queue: str, ticket: str) -> None:
        """Handle a ticket as if it had come from the queue's list; on the hub's thread.

        If the queue is not consumed any more, kombu puts the ticket into that list.
        """
        if self.task_consumer is not None:
            self.task_consumer.channel.deliver(queue, ticket.encode())


class ConsumerControl:
    """The queues of one consumer, which the `worker_ready` signal sends as its sender.

    A change takes effect on the hub's thread, in its next turn; the last of several changes counts.
    A message that was already delivered is returned to its queue. A paused queue stays paused after
    a reconnection.
    """

    def __init__(self, consumer: PausingConsumer) -> None:
        """No queue is paused yet."""
        self._consumer = consumer

    def is_cancelled(self, queue: str) -> bool:
        """Return whether an operator has cancelled a queue."""
        return queue in self._consumer.cancelled

    def pause(self, queue: str) -> None:
        """Stop consuming from `queue`; no effect if it is paused."""
        if queue not in self._consumer.paused:
            self._consumer.paused.add(queue)
            self._settle(queue)

    def resume(self, queue: str) -> None:
        """Consume from `queue` again; no effect if it is not paused.

        Waking the hub costs more than all else here, and slots free up all the time.
        """
        if queue in self._consumer.paused:
            self._consumer.paused.discard(queue)
            self._settle(queue)

    def deliver(self, queue: str, ticket: str) -> None:
        """Handle a ticket for `queue` that nobody has put into its list."""
        self._consumer.call_soon(self._consumer.deliver, queue, ticket)

    def _settle(self, queue: str) -> None:
        # The hub runs its callbacks in no fixed order, so each applies the current state.
        self._consumer.call_soon(self._consumer.settle, queue)
