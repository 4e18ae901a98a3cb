"""The timeout of a stream that has begun: its server may send nothing more, and not close it."""

import asyncio


class IdleTimeout:
    """Cancels a task that waits longer than `limit_s` seconds between `begin` and `end`."""

    __slots__ = ("_cancelling", "_has_expired", "_loop", "_since", "_task", "_timer", "limit_s")

    def __init__(self) -> None:
        """Inactive until `limit_s` is set; one event loop."""
        self.limit_s: float | None = None
        self._loop = asyncio.get_running_loop()
        self._since: float | None = None
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._has_expired = False
        self._cancelling = 0

    def begin(self) -> None:
        """The current task starts to wait for a packet."""
        if self.limit_s is None:
            return
        self._since = self._loop.time()
        if self._task is None:
            self._task = asyncio.current_task()
        if self._timer is None:
            self._timer = self._loop.call_later(self.limit_s, self._check)

    def end(self) -> None:
        """The packet has arrived."""
        self._since = None

    def expired(self) -> bool:
        """Whether this timeout alone caused the current cancellation; uncancels the task if so."""
        if not self._has_expired or self._task is None:
            return False
        self._has_expired = False
        return self._task.uncancel() <= self._cancelling

    def close(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        limit_s = self.limit_s or 0.0
        waited_s = 0.0 if self._since is None else self._loop.time() - self._since
        if self._since is not None and self._task is not None and waited_s >= limit_s:
            self._has_expired = True
            self._cancelling = self._task.cancelling()
            self._task.cancel()
            return
        self._timer = self._loop.call_later(limit_s - waited_s, self._check)
