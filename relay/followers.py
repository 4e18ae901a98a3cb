"""Who follows a job, over all shims, and what becomes of it when the last of them has left.

Redis knows processes, not followers: a process says once that it follows a job and once that it
does so no longer, and renews a lease meanwhile, so that the followers of a killed process do not
count for ever. A job with `on_disconnect=continue` costs nothing here.

When the last follower leaves, a clock starts: `cancel_after_s`, or for `cancel` the grace of the
connection (a browser's EventSource comes back within a second or two, a drop-in client never does).
Whoever follows again stops it. When it runs out, whoever looks first cancels: the shim that was
left, any other shim, or any worker's audit. A process whose lease ran out has left at that time.
Each script may be run twice.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final, Never, TypeVar
from uuid import uuid4

from contract import redis_keys
from contract.errors import JobNotFound, RelayUnavailable
from contract.events import LAST_WORDS
from contract.jobs import JobRecord
from contract.requests import OnDisconnect
from relay.connection import Connection, ScriptCall
from relay.queue import Queue
from relay.scripts import followers

_log = logging.getLogger(__name__)
T = TypeVar("T")
RECONNECT_GRACE_S: Final = 2.0
"""For a follower that can come back with its cursor; more than a browser is told to wait."""
_AT_ONCE: Final = 100
_RENEWED_AT_ONCE: Final = 250


class _Seat:
    """This process's followers of one job; its words to Redis about it come one by one."""

    def __init__(self) -> None:
        self.count = 0
        self.users = 0
        self.turn = asyncio.Lock()


class Follower:
    """One caller that follows a job."""

    def __init__(self) -> None:
        """Begin as one whose going is a disconnect."""
        self.has_returned = False

    def returns(self) -> None:
        """Go in order, as a poll that was answered does, which is no disconnect.

        It starts the clock of `cancel_after_s` (the next poll must come in time), no other.
        """
        self.has_returned = True


class Followers:
    """Counts this process's followers; run `keep` beside it."""

    def __init__(
        self, connection: Connection, *, is_ending: Callable[[], bool] = lambda: False
    ) -> None:
        """Follow under a name of this process's own.

        Once this process `is_ending`, nobody is said to leave: its callers come back to another
        one, and have its lease for that.
        """
        self._connection = connection
        self._queue = Queue(connection)
        self._process = uuid4().hex
        self._is_ending = is_ending
        self._seats: dict[str, _Seat] = {}
        self._closing: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def attending(
        self, record: JobRecord, *, grace_s: float = RECONNECT_GRACE_S
    ) -> AsyncGenerator[Follower]:
        """Count as a follower for as long as this is entered; raises RelayUnavailable.

        `grace_s`: how long `cancel` waits for this one to come back; 0 for one that cannot.
        """
        follower = Follower()
        if record.on_disconnect == "continue" or record.status in LAST_WORDS:
            yield follower
            return
        await self._sit(record.id)
        try:
            yield follower
        finally:
            await self._rise(record.id, None if follower.has_returned else grace_s)

    async def relax(self, record: JobRecord, policy: OnDisconnect) -> None:
        """Let a shared job live as long as the most patient of its callers wants."""
        await self._connection.call(followers.relax(record.id, policy))

    async def keep(self) -> Never:
        """Renew the leases of this process, and see to jobs that were left, anybody's."""
        try:
            while True:
                await asyncio.sleep(self._connection.settings.renew_s)
                with suppress(RelayUnavailable):
                    await self._renew()
                    await self.look()
        finally:
            for closing in self._closing:
                closing.cancel()
            await asyncio.gather(*self._closing, return_exceptions=True)

    async def look(self) -> int:
        """Cancel the jobs whose clock has run out. Returns how many; raises RelayUnavailable."""
        due = await self._connection.command(
            "ZRANGEBYSCORE", redis_keys.FOLLOWED, "-inf", f"{self._connection.now():.6f}",
            "LIMIT", 0, _AT_ONCE,
        )  # fmt: skip
        return sum([await self._cancel_if_left(id.decode()) for id in due])

    async def _sit(self, job_id: str) -> None:
        seat = self._seats.setdefault(job_id, _Seat())
        seat.count += 1
        try:
            await self._attend(job_id, seat)
        except BaseException:  # a caller may leave while Redis is asked, and count no more
            seat.count -= 1
            self._forget(job_id, seat)
            raise

    async def _rise(self, job_id: str, grace_s: float | None) -> None:
        seat = self._seats[job_id]
        seat.count -= 1
        if self._is_ending():
            return
        try:
            leave = followers.leave(job_id, self._process, grace_s)
            patience_s = await self._tell(job_id, seat, leave, when=0)
        except RelayUnavailable as error:
            _log.warning("job %s: who left is counted until the lease ends: %s", job_id, error)
            return
        if patience_s is not None and patience_s < self._connection.settings.renew_s:
            closing = asyncio.create_task(self._close(job_id, patience_s))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def _attend(self, job_id: str, seat: _Seat) -> None:
        attend = followers.attend(job_id, self._process, self._connection.settings.lease_s)
        await self._tell(job_id, seat, attend, when=1)

    async def _tell(self, job_id: str, seat: _Seat, call: ScriptCall[T], *, when: int) -> T | None:
        """Tell Redis, unless meanwhile there are followers (`when` 0) or none (`when` 1)."""
        seat.users += 1
        try:
            async with seat.turn:
                if min(seat.count, 1) != when:
                    return None
                return await self._connection.call(call)
        finally:
            seat.users -= 1
            self._forget(job_id, seat)

    def _forget(self, job_id: str, seat: _Seat) -> None:
        if not seat.count and not seat.users:
            self._seats.pop(job_id, None)

    async def _close(self, job_id: str, patience_s: float) -> None:
        """Cancel a job soon after it was left; longer clocks are for `keep` and the audit."""
        await asyncio.sleep(patience_s)
        with suppress(RelayUnavailable):
            await self._cancel_if_left(job_id)

    async def _cancel_if_left(self, job_id: str) -> bool:
        is_left = await self._connection.call(followers.is_left(job_id))
        if is_left:
            with suppress(JobNotFound):
                await self._queue.cancel(job_id, by="disconnect", reason="its last follower left")
            await self._connection.command("ZREM", redis_keys.FOLLOWED, job_id)
        return is_left

    async def _renew(self) -> None:
        jobs = [job_id for job_id, seat in self._seats.items() if seat.count]
        lease_s = self._connection.settings.lease_s
        for at in range(0, len(jobs), _RENEWED_AT_ONCE):
            some = jobs[at : at + _RENEWED_AT_ONCE]
            lost = await self._connection.call(followers.renew(self._process, lease_s, some))
            for job_id in lost:
                if (seat := self._seats.get(job_id)) is not None:
                    await self._attend(job_id, seat)
