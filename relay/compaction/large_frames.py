"""Large frames of logs, which a process keeps for a moment, once for all followers of a job.

A follower that does not read holds what it was given. Invariant: that is `MOST_BYTES`, or one
frame, which followers of the same job share.
"""

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple

from contract.events import BEGINNING, EventId, Frame

MOST_BYTES: Final = 2**17
"""Of the frames that a follower is given at once, unless one alone has more."""
_SHARED_BYTES: Final = 8 * 2**20
"""Of what a process keeps for its followers; one page may have more."""
_SHARED_S: Final = 10.0
"""After which it is read from the log again."""


class _Shared(NamedTuple):
    """All frames of a log after an event, up to the last of these."""

    after: EventId
    frames: list[Frame]
    size_bytes: int
    kept_at: float
    losses: int
    """Lost subscriptions of the process until then: Redis may have come back with another past."""


class LargeFrames:
    """Frames that are too many bytes for each follower to hold, a page for each of some jobs.

    A worker that is slower than its backend writes entries of a megabyte. A follower is given a
    part of one at a time; it finds the next part here, where those of the same job share it, or
    reads it from the log again.
    """

    def __init__(self, losses: Callable[[], int]) -> None:
        """`losses` returns how often the process has lost its subscriptions."""
        self._losses = losses
        self._pages: dict[str, _Shared] = {}
        self._size_bytes = 0
        self._message = b""
        self._decoded: list[Frame] = []
        self._timer: asyncio.TimerHandle | None = None

    def decoded(self, message: bytes) -> list[Frame]:
        """The frames of a message of the channel; the same for all followers of its job."""
        if len(message) <= MOST_BYTES:
            return Frame.from_entry(message)
        if message is not self._message:
            self._message, self._decoded = message, Frame.from_entry(message)
            self._forget_later()
        return self._decoded

    def after(self, job_id: str, cursor: EventId) -> list[Frame]:
        """The next frames after a cursor, as few as a follower may hold; empty if not kept."""
        page = self._pages.get(job_id)
        if page is None or page.losses != self._losses() or cursor < page.after:
            return []
        return _few([frame for frame in page.frames if (frame.id or BEGINNING) > cursor])

    def kept(self, job_id: str, after: EventId, frames: list[Frame]) -> list[Frame]:
        """The first of these frames, all that follow a cursor; the others are kept here."""
        size_bytes = sum([len(frame.body) for frame in frames])
        if size_bytes <= MOST_BYTES:
            return frames
        self.forget(job_id)
        now, losses = asyncio.get_running_loop().time(), self._losses()
        self._pages[job_id] = _Shared(after, frames, size_bytes, now, losses)
        self._size_bytes += size_bytes
        while self._size_bytes > _SHARED_BYTES and len(self._pages) > 1:
            self.forget(next(iter(self._pages)))
        self._forget_later()
        return _few(frames)

    def forget(self, job_id: str) -> None:
        """Keep nothing of this job."""
        if (page := self._pages.pop(job_id, None)) is not None:
            self._size_bytes -= page.size_bytes

    def _forget_later(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_SHARED_S, self._forget_old)

    def _forget_old(self) -> None:
        self._timer, self._message, self._decoded = None, b"", []
        old = asyncio.get_running_loop().time() - _SHARED_S / 2
        for job_id in [job for job, page in self._pages.items() if page.kept_at < old]:
            self.forget(job_id)
        if self._pages:
            self._forget_later()


def _few(frames: list[Frame]) -> list[Frame]:
    """The first of these frames, of so many bytes at most, or one."""
    size_bytes = 0
    for at, frame in enumerate(frames):
        size_bytes += len(frame.body)
        if at and size_bytes > MOST_BYTES:
            return frames[:at]
    return frames
