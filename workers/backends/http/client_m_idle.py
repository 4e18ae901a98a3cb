"""Notices that nothing has come for too long, at the price of a clock reading a chunk.

`asyncio.timeout` around every chunk would set and clear a timer each time; here one timer a
stream looks, when it fires, at when the wait began, and goes to sleep again.
"""

import asyncio


class Idle:
    """Cancels the task that waits between `begin` and `end` for longer than `limit_s`."""

    __slots__ = ("_cancelling", "_is_it", "_loop", "_since", "_task", "_timer", "limit_s")

    def __init__(self) -> None:
        """Without a limit until `limit_s` is set."""
        self.limit_s: float | None = None
        self._loop = asyncio.get_running_loop()
        self._since: float | None = None
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_it = False
        self._cancelling = 0

    def begin(self) -> None:
        """The current task starts to wait."""
        if self.limit_s is None:
            return
        self._since = self._loop.time()
        if self._task is None:
            self._task = asyncio.current_task()
        if self._timer is None:
            self._timer = self._loop.call_later(self.limit_s, self._look)

    def end(self) -> None:
        """It waits no more."""
        self._since = None

    def was_it(self) -> bool:
        """Whether the cancellation that just arrived is ours alone; takes it back if so."""
        if not self._is_it or self._task is None:
            return False
        self._is_it = False
        return self._task.uncancel() <= self._cancelling

    def close(self) -> None:
        """Stop looking."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        limit_s = self.limit_s or 0.0
        waited_s = 0.0 if self._since is None else self._loop.time() - self._since
        if self._since is not None and self._task is not None and waited_s >= limit_s:
            self._is_it = True
            self._cancelling = self._task.cancelling()
            self._task.cancel()
            return
        self._timer = self._loop.call_later(limit_s - waited_s, self._look)
