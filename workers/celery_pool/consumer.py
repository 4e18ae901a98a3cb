"""Which queues a running worker takes from: pause one and resume it, from any thread."""

from typing import Any


class ConsumerControl:
    """The queues of one Celery consumer, which the `worker_ready` signal sends as its sender.

    A change takes effect on the hub's thread, within a turn; of several, the last one holds. A
    message that the broker has already handed out goes back to its queue. A paused queue stays
    paused over a reconnection.
    """

    def __init__(self, consumer: Any) -> None:
        """Keep the consumer; its queues stay as they are."""
        self._consumer = consumer
        self._paused: set[str] = set()

    def pause(self, queue: str) -> None:
        """Take no more from `queue`; again: no change."""
        self._paused.add(queue)
        self._consumer.call_soon(self._settle, queue)

    def resume(self, queue: str) -> None:
        """Take from `queue` again; not paused: no change."""
        self._paused.discard(queue)
        self._consumer.call_soon(self._settle, queue)

    def _settle(self, queue: str) -> None:
        # The hub keeps no order among its callbacks, so each looks at the wish, not at its cause.
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
