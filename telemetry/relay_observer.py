"""What the relay reports of its work: the only thing that it knows of metrics."""


class RelayObserver:
    """What the relay reports of its work in this process; this class ignores all of it.

    `queue` is the name of a queue. Methods must neither raise nor wait.
    """

    def on_round_trip(self, seconds: float) -> None:
        """Receive how long a call waited for its last reply."""

    def on_published(self, events: int) -> None:
        """Receive how many events the publisher has written in one script call."""

    def on_enqueued(self, queue: str, priority: str) -> None:
        """Receive that a job of this class was put into a queue."""

    def on_refused(self, queue: str, scope: str) -> None:
        """Receive that an enqueue was refused.

        `scope` is what was full: `queue`, `tenant` (its share of the queue), or one of the
        tenant's limits, as in `tokens_day`.
        """

    def on_settled(self, tenant: str, cost: float) -> None:
        """Receive the cost of a tenant's jobs that are in the ledger now, in its currency."""

    def on_removed_early(self, tenant: str, jobs: int) -> None:
        """Receive how many ended jobs of a tenant were removed before their time."""

    def on_set_aside(self, key: str) -> None:
        """Receive that a damaged key was set aside: its name, with `*` for what it is of."""

    def on_ended(self, queue: str, priority: str, tenant: str, outcome: str) -> None:
        """Receive that this process has ended a job: `cancelled`, `failed` or `dead`.

        Not called for the end of an attempt that ran, which the worker knows.
        """
