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
from typing import Any, Final, Never
from uuid import uuid4

from contract import redis_keys
from contract.errors import JobNotFound, RelayUnavailable
from contract.events import LAST_WORDS
from contract.jobs import JobRecord
from contract.requests import OnDisconnect, disconnect_text
from relay.connection import Connection
from relay.queue import Queue

_log = logging.getLogger(__name__)

RECONNECT_GRACE_S: Final = 2.0
"""For a follower that can come back with its cursor; more than a browser is told to wait."""
_AT_ONCE: Final = 100
_RENEWED_AT_ONCE: Final = 250

_JOB: Final = """#!lua flags=allow-oom
-- KEYS record audience followed; ARGV job ...
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local record, audience, followed = unpack(KEYS)
local function exact(at) return string.format('%.6f', at) end
local status, policy = unpack(redis.call('HMGET', record, 'status', 'on_disconnect'))
local ends = status and (policy == 'cancel' or string.match(policy or '', '^cancel_after_s='))
local patience_s = ends and tonumber(string.match(policy, '[%d.e+-]+$'))
if not ends or status == 'done' or status == 'failed' or status == 'cancelled' then
    redis.call('DEL', audience)
    redis.call('ZREM', followed, ARGV[1])
    return false
end
"""

ATTEND: Final = (
    _JOB
    + """
-- ARGV process lease_s
redis.call('ZADD', audience, exact(now + ARGV[3]), ARGV[2])
redis.call('EXPIRE', audience, math.ceil(ARGV[3] * 10))
redis.call('ZADD', followed, exact(now + ARGV[3]), ARGV[1])
return 1
"""
)
"""A process begins to follow, which stops the clock."""

LEAVE: Final = (
    _JOB
    + """
-- ARGV process grace_s (or '' where to leave is no disconnect)
redis.call('ZREM', audience, ARGV[2])
redis.call('ZREMRANGEBYSCORE', audience, '-inf', now)
local last = redis.call('ZREVRANGE', audience, 0, 0, 'WITHSCORES')
if last[1] then
    redis.call('ZADD', followed, last[2], ARGV[1])
elseif not patience_s and ARGV[3] == '' then
    redis.call('ZREM', followed, ARGV[1])
else
    patience_s = patience_s or tonumber(ARGV[3])
    redis.call('ZADD', followed, exact(now + patience_s), ARGV[1])
    return tostring(patience_s)
end
return false
"""
)
"""A process follows no longer. Returns the seconds on the clock if that has started."""

RENEW: Final = """#!lua flags=allow-oom
-- KEYS followed audience...; ARGV process lease_s job...
local time = redis.call('TIME')
local until_at = string.format('%.6f', time[1] + time[2] / 1e6 + ARGV[2])
local lost = {}
for i = 2, #KEYS do
    if redis.call('ZSCORE', KEYS[i], ARGV[1]) then
        redis.call('ZADD', KEYS[i], until_at, ARGV[1])
        redis.call('EXPIRE', KEYS[i], math.ceil(ARGV[2] * 10))
        redis.call('ZADD', KEYS[1], until_at, ARGV[i + 1])
    else
        lost[#lost + 1] = ARGV[i + 1]
    end
end
return lost
"""
"""Renew a process's leases. Returns the jobs that Redis does not know it to follow."""

IS_LEFT: Final = (
    _JOB
    + """
local due = redis.call('ZSCORE', followed, ARGV[1])
if not due or tonumber(due) > now then return false end
local last = redis.call('ZREVRANGE', audience, 0, 0, 'WITHSCORES')
local until_at = last[2] and tonumber(last[2])
if until_at and until_at <= now then
    redis.call('DEL', audience)
    until_at = until_at + (patience_s or 0)
end
if until_at and until_at > now then
    redis.call('ZADD', followed, exact(until_at), ARGV[1])
    return false
end
return 1
"""
)
"""Whether a job has been left for as long as it may; an expired lease begins its clock."""

RELAX: Final = (
    _JOB
    + """
-- ARGV policy patience_s
if ARGV[2] == 'continue' then
    redis.call('DEL', audience)
    redis.call('ZREM', followed, ARGV[1])
elseif ARGV[3] == '' or patience_s and patience_s >= tonumber(ARGV[3]) then
    return false
end
redis.call('HSET', record, 'on_disconnect', ARGV[2])
return 1
"""
)
"""Let a job that several callers share have the most lenient policy of theirs."""


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
            await self._rise(record.id, "" if follower.has_returned else grace_s)

    async def relax(self, record: JobRecord, policy: OnDisconnect) -> None:
        """Let a shared job live as long as the most patient of its callers wants."""
        seconds = "" if isinstance(policy, str) else policy.cancel_after_s
        await self._connection.run(
            RELAX, _keys(record.id), [record.id, disconnect_text(policy), seconds]
        )

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
            await self._tell(job_id, seat, ATTEND, self._connection.settings.lease_s, when=1)
        except BaseException:  # a caller may leave while Redis is asked, and count no more
            seat.count -= 1
            self._forget(job_id, seat)
            raise

    async def _rise(self, job_id: str, grace_s: float | str) -> None:
        seat = self._seats[job_id]
        seat.count -= 1
        if self._is_ending():
            return
        try:
            patience_s = await self._tell(job_id, seat, LEAVE, grace_s, when=0)
        except RelayUnavailable as error:
            _log.warning("job %s: who left is counted until the lease ends: %s", job_id, error)
            return
        if patience_s and float(patience_s) < self._connection.settings.renew_s:
            closing = asyncio.create_task(self._close(job_id, float(patience_s)))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def _tell(
        self, job_id: str, seat: _Seat, script: str, argument: str | float, *, when: int
    ) -> Any:
        """Tell Redis, unless meanwhile there are followers (`when` 0) or none (`when` 1)."""
        seat.users += 1
        try:
            async with seat.turn:
                if min(seat.count, 1) != when:
                    return None
                args = [job_id, self._process, argument]
                return await self._connection.run(script, _keys(job_id), args)
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
        is_left = bool(await self._connection.run(IS_LEFT, _keys(job_id), [job_id]))
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
            keys = [redis_keys.FOLLOWED, *(redis_keys.audience(job_id) for job_id in some)]
            lost = await self._connection.run(RENEW, keys, [self._process, lease_s, *some])
            for id in lost:
                if (seat := self._seats.get(id.decode())) is not None:
                    await self._tell(id.decode(), seat, ATTEND, lease_s, when=1)


def _keys(job_id: str) -> list[str]:
    return [redis_keys.record(job_id), redis_keys.audience(job_id), redis_keys.FOLLOWED]
