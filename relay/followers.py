"""Counts the followers of a job over all shims, and cancels the job when the last has left.

Redis counts processes, not followers: a process registers with its first follower of a job, renews
a lease, and deregisters with its last one, so that a killed process stops counting when its lease
expires. A job with `on_disconnect=continue` costs nothing here.

When the last follower leaves, a clock starts: `cancel_after_s`, or for `cancel` the grace of the
connection (a browser's EventSource comes back within a second or two, a drop-in client never does).
A new follower stops it. When it runs out, the job is cancelled by the first process that notices:
that shim, another shim, or the maintainer. A process whose lease expired counts as having left at
that time.
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
from relay.scripts.jobs import attend
from relay.scripts.loader import load
from telemetry.repeated_warnings import RepeatedWarnings

_log = logging.getLogger(__name__)
_repeated = RepeatedWarnings(_log)
T = TypeVar("T")
RECONNECT_GRACE_S: Final = 2.0
"""For a follower that can reconnect with its cursor; longer than the SSE `retry` of a browser."""
_AT_ONCE: Final = 100
_RENEWED_AT_ONCE: Final = 250


class _LocalFollowers:
    """This process's followers of one job; `turn` orders its commands to Redis."""

    def __init__(self) -> None:
        self.count = 0
        self.users = 0
        self.has_ended = False
        self.turn = asyncio.Lock()


class Follower:
    """One client that follows a job."""

    def __init__(self) -> None:
        """Leaving counts as a disconnect until `returns` is called."""
        self.has_returned = False

    def returns(self) -> None:
        """Mark the end as regular, as of a poll that was answered: it is no disconnect.

        It starts the clock of `cancel_after_s` (the next poll must come in time), no other.
        """
        self.has_returned = True


class Followers:
    """The followers of this process; its `keep_leases` must run as a task."""

    def __init__(
        self, connection: Connection, *, is_ending: Callable[[], bool] = lambda: False
    ) -> None:
        """Register under a random process name.

        Once `is_ending` returns True, no departure is sent: the clients reconnect to another
        process, and have the rest of the lease for that.
        """
        self._connection = connection
        self._queue = Queue(connection)
        self.process: Final = uuid4().hex
        """The name of this process, with which `Queue.enqueue` can add it to a new job."""
        self._is_ending = is_ending
        self._jobs: dict[str, _LocalFollowers] = {}
        self._closing: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def follow(
        self,
        record: JobRecord,
        *,
        grace_s: float = RECONNECT_GRACE_S,
        is_registered: bool = False,
    ) -> AsyncGenerator[Follower]:
        """Count as a follower for as long as this is entered; raises RelayUnavailable.

        `grace_s`: how long `cancel` waits for this one to come back; 0 for one that cannot.
        `is_registered`: the job was enqueued with this process as its first follower.
        """
        follower = Follower()
        if record.on_disconnect == "continue" or record.status in LAST_WORDS:
            yield follower
            return
        if is_registered:
            self._jobs.setdefault(record.id, _LocalFollowers()).count += 1
        else:
            await self._add(record.id)
        try:
            yield follower
        finally:
            await self._remove(record.id, None if follower.has_returned else grace_s)

    def job_ended(self, job_id: str) -> None:
        """Note that a job has ended: the script that wrote its end has removed its followers."""
        if (local := self._jobs.get(job_id)) is not None:
            local.has_ended = True

    async def merge_policy(self, record: JobRecord, policy: OnDisconnect) -> None:
        """Give a job that several clients share the most lenient of their policies.

        Raises RelayUnavailable.
        """
        await self._connection.call(merge_policy(record.id, policy))

    async def keep_leases(self) -> Never:
        """Renew the leases of this process, and cancel abandoned jobs, until cancelled."""
        try:
            while True:
                await asyncio.sleep(self._connection.settings.renew_s)
                with suppress(RelayUnavailable):
                    await self._renew()
                    await self.cancel_abandoned()
        finally:
            for closing in self._closing:
                closing.cancel()
            await asyncio.gather(*self._closing, return_exceptions=True)

    async def cancel_abandoned(self) -> int:
        """Cancel the jobs whose clock has run out. Returns how many; raises RelayUnavailable."""
        due = await self._connection.command(
            "ZRANGEBYSCORE", redis_keys.FOLLOWED, "-inf", f"{self._connection.now():.6f}",
            "LIMIT", 0, _AT_ONCE,
        )  # fmt: skip
        cancelled = 0
        for id in due:
            job_id = id.decode(errors="replace")
            with self._connection.passing_over(redis_keys.record(job_id)):
                cancelled += await self._cancel_if_left(job_id)
        return cancelled

    async def _add(self, job_id: str) -> None:
        local = self._jobs.setdefault(job_id, _LocalFollowers())
        local.count += 1
        try:
            await self._attend(job_id, local)
        except BaseException:  # a client may leave during the call, and then does not count
            local.count -= 1
            self._forget(job_id, local)
            raise

    async def _remove(self, job_id: str, grace_s: float | None) -> None:
        local = self._jobs[job_id]
        local.count -= 1
        if self._is_ending():
            return
        if local.has_ended:
            self._forget(job_id, local)
            return
        try:
            call = leave(job_id, self.process, grace_s)
            patience_s = await self._send(job_id, local, call, when=0)
        except RelayUnavailable as error:
            _repeated.warn(
                "job %s: a follower that left counts until its lease expires: %s", job_id, error
            )
            return
        if patience_s is not None and patience_s < self._connection.settings.renew_s:
            closing = asyncio.create_task(self._close(job_id, patience_s))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def _attend(self, job_id: str, local: _LocalFollowers) -> None:
        call = attend(job_id, self.process, self._connection.settings.lease_s)
        await self._send(job_id, local, call, when=1)

    async def _send(
        self, job_id: str, local: _LocalFollowers, call: ScriptCall[T], *, when: int
    ) -> T | None:
        """Run a script, unless meanwhile there are followers (`when` 0) or none (`when` 1)."""
        local.users += 1
        try:
            async with local.turn:
                if min(local.count, 1) != when:
                    return None
                return await self._connection.call(call)
        finally:
            local.users -= 1
            self._forget(job_id, local)

    def _forget(self, job_id: str, local: _LocalFollowers) -> None:
        if not local.count and not local.users:
            self._jobs.pop(job_id, None)

    async def _close(self, job_id: str, patience_s: float) -> None:
        """Cancel a job soon after its last follower left; `keep_leases` handles longer clocks."""
        await asyncio.sleep(patience_s)
        with suppress(RelayUnavailable):
            await self._cancel_if_left(job_id)

    async def _cancel_if_left(self, job_id: str) -> bool:
        call, key = is_left(job_id), redis_keys.record(job_id)
        has_expired = await self._connection.call_or_none(call, key)
        if has_expired:
            with suppress(JobNotFound):
                await self._queue.cancel(job_id, by="disconnect", reason="its last follower left")
        if has_expired is not False:  # None: the job has no record, but something else there
            await self._connection.command("ZREM", redis_keys.FOLLOWED, job_id)
        return bool(has_expired)

    async def _renew(self) -> None:
        jobs = [job_id for job_id, local in self._jobs.items() if local.count]
        lease_s = self._connection.settings.lease_s
        for at in range(0, len(jobs), _RENEWED_AT_ONCE):
            some = jobs[at : at + _RENEWED_AT_ONCE]
            lost = await self._connection.call(renew(self.process, lease_s, some))
            for job_id in lost:
                if (local := self._jobs.get(job_id)) is not None:
                    await self._attend(job_id, local)


# Scripts: relay/lua/followers. A job that has ended, or whose policy is `continue`, has no
# followers: each script deletes what is left of them and returns nil.


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
    return [job_id.decode(errors="replace") for job_id in reply]
