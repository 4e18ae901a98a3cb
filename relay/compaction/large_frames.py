"""Large frames of logs, which a process keeps for a moment, once for all followers of a job.

A follower that does not read holds what it was given. Invariant: that is `MOST_BYTES`, or one
frame, which followers of the same job share.
"""

import asyncio
from bisect import bisect_right
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final, NamedTuple

from contract.events import BEGINNING, EventId, Frame
from relay.compaction.follower_turns import in_turn

MOST_BYTES: Final = 2**17
"""Of the frames that a follower is given at once, unless one alone has more."""
_READS: Final = 8
"""Pages that are read at once, each of a megabyte at most, or one entry."""
_WAIT_S: Final = 1.0
_SHARED_BYTES: Final = 8 * 2**20
"""Of what a process keeps for its followers; one page may have more."""
_SHARED_S: Final = 10.0
"""After which it is read from the log again."""


class _Shared(NamedTuple):
    """All frames of a log after an event, up to the last of these."""

    frames: list[Frame]
    size_bytes: int
    kept_at: float
    losses: int
    """Lost subscriptions of the process until then: Redis may have come back with another past."""

    def after(self, cursor: EventId) -> list[Frame]:
        """The next ones after a cursor that is not before them, as few as a follower may hold."""
        return _few(self.frames, bisect_right(self.frames, cursor, key=_id))


class LargeFrames:
    """Frames that are too many bytes for each follower to hold, some pages of some jobs.

    A worker that is slower than its backend writes entries of a megabyte. A follower is given a
    part of one at a time; it finds the next part here, where those of the same job share it, or
    reads it from the log again.
    """

    def __init__(self, losses: Callable[[], int]) -> None:
        """`losses` returns how often the process has lost its subscriptions."""
        self._reads = asyncio.Semaphore(_READS)
        self._decoding = asyncio.Lock()
        self._losses = losses
        self._pages: dict[str, dict[EventId, _Shared]] = {}
        """By job and the cursor that a page follows."""
        self._reading: dict[tuple[str, EventId], asyncio.Event] = {}
        self._size_bytes = 0
        self._message = b""
        self._decoded: list[Frame] = []
        self._timer: asyncio.TimerHandle | None = None

    def decoded(self, message: bytes) -> list[Frame]:
        """The frames of a message of the channel; the same for all followers of its job.

        Empty, or raises ValueError, for what no process of the fleet has sent.
        """
        if len(message) <= MOST_BYTES:
            return _sound(message)
        if message is not self._message:
            self._message, self._decoded = message, []
            self._forget_later()
            self._decoded = _sound(message)
        return self._decoded

    def after(self, job_id: str, cursor: EventId) -> list[Frame]:
        """The next frames after a cursor, as few as a follower may hold; empty if not kept."""
        for begin, page in self._pages.get(job_id, {}).items():
            if begin <= cursor < _id(page.frames[-1]) and page.losses == self._losses():
                return page.after(cursor)
        return []

    async def after_others(self, job_id: str, cursor: EventId) -> list[Frame]:
        """The same in turn, once another reader has read the log after this cursor, if one does."""
        found = self.after(job_id, cursor)
        if not found and (reading := self._reading.get((job_id, cursor))) is not None:
            await reading.wait()
            found = self.after(job_id, cursor)
        if found:
            await in_turn()
        return found

    @asynccontextmanager
    async def reading(self, job_id: str, cursor: EventId) -> AsyncGenerator[None]:
        """While the log is read after a cursor: those who want the same wait for it."""
        done = asyncio.Event()
        mine = self._reading.setdefault((job_id, cursor), done) is done
        try:
            async with self.few_reads():
                yield
        finally:
            if mine:
                del self._reading[job_id, cursor]
                done.set()

    @asynccontextmanager
    async def few_reads(self) -> AsyncGenerator[None]:
        """While entries are read that may be large: few do so at once.

        Who has waited for a second goes on beside them: Redis may be silent to them.
        """
        has_room = not self._reads.locked() and await self._reads.acquire()
        if not has_room:
            with suppress(TimeoutError):
                async with asyncio.timeout(_WAIT_S):
                    has_room = await self._reads.acquire()
        try:
            yield
        finally:
            if has_room:
                self._reads.release()

    @asynccontextmanager
    async def decoding(self, size_bytes: int) -> AsyncGenerator[None]:
        """While so much is decoded: if it is large, nothing else in the same turn of the loop."""
        if size_bytes <= MOST_BYTES:
            yield
            return
        async with self._decoding:
            yield
            await asyncio.sleep(0)

    def kept(self, job_id: str, after: EventId, frames: list[Frame]) -> list[Frame]:
        """The first of these frames, all that follow a cursor; the others are kept here."""
        size_bytes = sum([len(frame.body) for frame in frames])
        if size_bytes <= MOST_BYTES:
            return frames
        now, losses = asyncio.get_running_loop().time(), self._losses()
        self._drop(job_id, after)
        self._pages.setdefault(job_id, {})[after] = _Shared(frames, size_bytes, now, losses)
        self._size_bytes += size_bytes
        self._forget_beyond(_SHARED_BYTES)
        self._forget_later()
        return _few(frames, 0)

    def forget(self, job_id: str) -> None:
        """Keep nothing of this job."""
        for after in tuple(self._pages.get(job_id, ())):
            self._drop(job_id, after)

    def _drop(self, job_id: str, after: EventId) -> None:
        pages = self._pages.get(job_id, {})
        if (page := pages.pop(after, None)) is not None:
            self._size_bytes -= page.size_bytes
            if not pages:
                del self._pages[job_id]

    def _oldest_first(self) -> list[tuple[float, str, EventId]]:
        return sorted(
            (page.kept_at, job_id, after)
            for job_id, pages in self._pages.items()
            for after, page in pages.items()
        )

    def _forget_beyond(self, most_bytes: int) -> None:
        """Keep no more than this, but the newest page."""
        if self._size_bytes > most_bytes:
            for _, job_id, after in self._oldest_first()[:-1]:
                self._drop(job_id, after)
                if self._size_bytes <= most_bytes:
                    return

    def _forget_later(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_SHARED_S, self._forget_old)

    def _forget_old(self) -> None:
        self._timer, self._message, self._decoded = None, b"", []
        old = asyncio.get_running_loop().time() - _SHARED_S / 2
        for kept_at, job_id, after in self._oldest_first():
            if kept_at < old:
                self._drop(job_id, after)
        if self._pages:
            self._forget_later()


def _id(frame: Frame) -> EventId:
    return frame.id or BEGINNING


def _sound(message: bytes) -> list[Frame]:
    """The frames of a message, or none if one of them is no event of the fleet."""
    frames = Frame.from_entry(message)
    unsound = [frame for frame in frames if frame.id != BEGINNING and not frame.is_sound]
    return [] if unsound else frames


def _few(frames: list[Frame], begin: int) -> list[Frame]:
    """The first of these frames from a place on, of so many bytes at most, or one."""
    size_bytes = 0
    for at in range(begin, len(frames)):
        size_bytes += len(frames[at].body)
        if at > begin and size_bytes > MOST_BYTES:
            return frames[begin:at]
    return frames[begin:]
