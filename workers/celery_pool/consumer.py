"""Pauses and resumes the queues of a running worker, from any thread."""

from typing import Any


class ConsumerControl:
    """The queues of one Celery consumer, which the `worker_ready` signal sends as its sender.

    A change takes effect on the hub's thread, in its next turn; the last of several changes counts.
    A message that was already delivered is returned to its queue. A paused queue stays paused after
    a reconnection.
    """

    def __init__(self, consumer: Any) -> None:
        """`consumer` is Celery's; no queue is paused yet."""
        self._consumer = consumer
        self._paused: set[str] = set()

    def pause(self, queue: str) -> None:
        """Stop consuming from `queue`; no effect if it is paused."""
        self._paused.add(queue)
        self._consumer.call_soon(self._apply, queue)

    def resume(self, queue: str) -> None:
        """Consume from `queue` again; no effect if it is not paused."""
        self._paused.discard(queue)
        self._consumer.call_soon(self._apply, queue)

    def _apply(self, queue: str) -> None:
        # The hub runs its callbacks in no fixed order, so each applies the current state.
        wanted = queue not in self._paused
        queues = self._consumer.app.amqp.queues
        if (queue in queues.consume_from) is wanted:
            return
        if self._consumer.task_consumer is None:
            select = queues.select_add if wanted else queues.deselect
            select(queue)
        elif wanted:
            self._consumer.add_task_queue(queue)
        else:
            self._consumer.cancel_task_queue(queue)
