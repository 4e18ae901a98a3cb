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
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, Never, TypeVar
from uuid import uuid4

from contract import redis_keys
from contract.errors import JobNotFound, RelayUnavailable
from contract.events import LAST_WORDS
from contract.jobs import JobRecord
from contract.requests import OnDisconnect, disconnect_text
from relay.connection import Argument, Connection, ScriptCall
from relay.queue import Queue
from relay.scripts.loader import load

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

    async def merge_policy(self, record: JobRecord, policy: OnDisconnect) -> None:
        """Give a job that several clients share the most lenient of their policies.

        Raises RelayUnavailable.
        """
        await self._connection.call(merge_policy(record.id, policy))

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
            call = leave(job_id, self._process, grace_s)
            patience_s = await self._tell(job_id, seat, call, when=0)
        except RelayUnavailable as error:
            _log.warning("job %s: who left is counted until the lease ends: %s", job_id, error)
            return
        if patience_s is not None and patience_s < self._connection.settings.renew_s:
            closing = asyncio.create_task(self._close(job_id, patience_s))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def _attend(self, job_id: str, seat: _Seat) -> None:
        call = attend(job_id, self._process, self._connection.settings.lease_s)
        await self._tell(job_id, seat, call, when=1)

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
        has_expired = await self._connection.call(is_left(job_id))
        if has_expired:
            with suppress(JobNotFound):
                await self._queue.cancel(job_id, by="disconnect", reason="its last follower left")
            await self._connection.command("ZREM", redis_keys.FOLLOWED, job_id)
        return has_expired

    async def _renew(self) -> None:
        jobs = [job_id for job_id, seat in self._seats.items() if seat.count]
        lease_s = self._connection.settings.lease_s
        for at in range(0, len(jobs), _RENEWED_AT_ONCE):
            some = jobs[at : at + _RENEWED_AT_ONCE]
            lost = await self._connection.call(renew(self._process, lease_s, some))
            for job_id in lost:
                if (seat := self._seats.get(job_id)) is not None:
                    await self._attend(job_id, seat)


# Scripts: relay/lua/followers. A job that has ended, or whose policy is `continue`, has no
# followers: each script deletes what is left of them and returns nil.


def attend(job_id: str, process: str, lease_s: float) -> ScriptCall[bool]:
    """Add a process to a job's followers for `lease_s` seconds, which stops the job's clock."""
    args: list[Argument] = [job_id, process, lease_s]
    return ScriptCall(load("followers/attend"), _keys(job_id), args, bool)


def leave(job_id: str, process: str, grace_s: float | None) -> ScriptCall[float | None]:
    """Remove a process from a job's followers.

    Returns the seconds until the job is cancelled, if this has started its clock: those of its
    `cancel_after_s`, or `grace_s`. `grace_s` is None if to leave is no disconnect.
    """
    args: list[Argument] = [job_id, process, "" if grace_s is None else grace_s]
    return ScriptCall(load("followers/leave"), _keys(job_id), args, _seconds)


def renew(process: str, lease_s: float, job_ids: Sequence[str]) -> ScriptCall[list[str]]:
    """Renew the leases of a process. Returns the ids of jobs that it has none on."""
    keys = [redis_keys.FOLLOWED, *(redis_keys.audience(job_id) for job_id in job_ids)]
    return ScriptCall(load("followers/renew"), keys, [process, lease_s, *job_ids], _ids)


def is_left(job_id: str) -> ScriptCall[bool]:
    """Whether a job's clock has run out. The clock of an expired lease starts when it expired."""
    return ScriptCall(load("followers/is_left"), _keys(job_id), [job_id], bool)


def merge_policy(job_id: str, policy: OnDisconnect) -> ScriptCall[bool]:
    """Set a job's policy if this one is more lenient. Returns whether it was set."""
    patience_s = "" if isinstance(policy, str) else policy.cancel_after_s
    args: list[Argument] = [job_id, disconnect_text(policy), patience_s]
    return ScriptCall(load("followers/merge_policy"), _keys(job_id), args, bool)


def _keys(job_id: str) -> list[str]:
    return [redis_keys.record(job_id), redis_keys.audience(job_id), redis_keys.FOLLOWED]


def _seconds(reply: Any) -> float | None:
    return float(reply) if reply else None


def _ids(reply: Any) -> list[str]:
    return [job_id.decode() for job_id in reply]
