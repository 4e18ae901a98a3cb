"""Who holds what: leases that are renewed in bulk, and taken from whoever stops renewing.

A hand-over has two halves, each a script that may be run twice, so that a reaper which dies between
them is finished by the next: first the log side (HAND_OVER in relay/log.py fences the old holder),
then the queue side (RETURN gives the job back to the backlog). A fenced holder forgets its job
without touching the queue; only a holder whose last word stands in the log releases.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from typing_extensions import override

from contract import names
from contract.errors import FleetError, WorkerLost
from contract.events import Failed, Queued
from contract.requests import SLACK_S
from relay.connection import Argument, Connection
from relay.log import END, HAND_OVER
from relay.order import TOP_UP, facts_of
from relay.records import Records
from relay.tickets import ticket

_log = logging.getLogger(__name__)

RENEW: Final = """
-- KEYS leases holders; ARGV worker lease_s (id attempt)...
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local lost = {string.format('%.6f', now)}
for i = 3, #ARGV, 2 do
    if redis.call('HGET', KEYS[2], ARGV[i]) == ARGV[i + 1] .. ' ' .. ARGV[1] then
        redis.call('ZADD', KEYS[1], string.format('%.6f', now + ARGV[2]), ARGV[i])
    else
        lost[#lost + 1] = ARGV[i]
    end
end
return lost
"""
"""Renew the leases that the worker still holds. Returns now, then the ids of the others."""

RELEASE: Final = """
-- KEYS backlog facts leases holders drained; ARGV id holder (or '' for whoever holds it)
local holder = redis.call('HGET', KEYS[4], ARGV[1])
if ARGV[2] ~= '' and holder ~= ARGV[2] then return false end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('HDEL', KEYS[4], ARGV[1])
if holder then
    redis.call('INCR', KEYS[5])
    redis.call('EXPIRE', KEYS[5], 900)
end
return holder
"""
"""Forget a job that has ended. Returns who held it."""

RETURN: Final = """
-- KEYS backlog facts leases holders tickets queues
-- ARGV id old_attempt new_attempt ticket queue facts
local holder = redis.call('HGET', KEYS[4], ARGV[1])
if holder and string.match(holder, '^%d+') ~= ARGV[2] then return 0 end
if not holder and redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end
local text = redis.call('HGET', KEYS[2], ARGV[1])
local facts = cjson.decode(text or ARGV[6])
facts.attempt = tonumber(ARGV[3])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('HDEL', KEYS[4], ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], cjson.encode(facts))
redis.call('ZADD', KEYS[1], string.format('%.6f', facts.start), ARGV[1])
redis.call('ZADD', KEYS[6], string.format('%.3f', facts.start), ARGV[5])
if redis.call('LLEN', KEYS[5]) < redis.call('ZCARD', KEYS[1]) then
    redis.call('LPUSH', KEYS[5], ARGV[4])
end
return 1
"""
"""Give a held or lost job back to the backlog, at the place it had. Returns 1 if it was moved."""

EXPIRED: Final = """
-- KEYS leases holders; ARGV limit
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
local answer = {}
for _, id in ipairs(ids) do
    answer[#answer + 1] = id
    answer[#answer + 1] = redis.call('HGET', KEYS[2], id) or ''
end
return answer
"""

_RENEWED_AT_ONCE: Final = 250
"""Leases in one call: a thousand block Redis for 2.3 ms."""
_REAPED_AT_ONCE: Final = 100
_TICKETS_AT_ONCE: Final = 64


class Holder(NamedTuple):
    """Who has a job: `<attempt> <worker>` in Redis."""

    attempt: int
    worker: str

    @classmethod
    def parse(cls, text: str) -> "Holder":
        """Read the form in Redis."""
        attempt, _, worker = text.partition(" ")
        return cls(int(attempt), worker)

    @override
    def __str__(self) -> str:
        return f"{self.attempt} {self.worker}"


class Leases:
    """Renews, releases, hands over and reaps."""

    def __init__(self, connection: Connection) -> None:
        """Work through this connection."""
        self._connection = connection
        self._records = Records(connection)

    async def renew(self, worker: str, held: Mapping[str, Sequence[tuple[str, int]]]) -> set[str]:
        """Renew the leases on `held` (queue to job ids with attempts).

        Returns the ids that this worker holds no longer; raises RelayUnavailable.
        """
        lost: set[str] = set()
        for queue, jobs in held.items():
            for at in range(0, len(jobs), _RENEWED_AT_ONCE):
                args = [str(x) for job in jobs[at : at + _RENEWED_AT_ONCE] for x in job]
                now, *gone = await self._connection.run(
                    RENEW,
                    [names.leases(queue), names.holders(queue)],
                    [worker, self._connection.settings.lease_s, *args],
                )
                self._connection.set_clock(float(now))
                lost.update(id.decode() for id in gone)
        return lost

    async def release(self, queue: str, job_id: str, holder: Holder | None) -> str | None:
        """Forget a job that has ended. Returns the worker that held it, if any did."""
        keys = [
            names.backlog(queue), names.facts(queue), names.leases(queue), names.holders(queue),
            names.drained(queue, math.floor(self._connection.now() / 60)),
        ]  # fmt: skip
        answer = await self._connection.run(RELEASE, keys, [job_id, str(holder or "")])
        return Holder.parse(answer.decode()).worker if answer else None

    async def hand_over(
        self, queue: str, job_id: str, attempt: int, *, reason: str, counts: bool
    ) -> bool:
        """Take a job from its holder and give it back to the backlog, or end it.

        `counts` says whether this uses up one of the job's attempts. Returns whether somebody
        else may claim it now; raises RelayUnavailable.
        """
        queued = _fields(Queued(queue=queue, reason=reason))
        state, new_attempt = await self._connection.run(
            HAND_OVER,
            [names.record(job_id), names.log(job_id)],
            [names.channel(job_id), attempt, int(counts), queued],
        )
        match state:
            case b"queued":
                return await self.give_back(queue, job_id, attempt, new_attempt)
            case b"exhausted":
                await self.end(queue, job_id, WorkerLost(f"{reason}; it was the last attempt"))
            case b"ended":
                await self.release(queue, job_id, None)
            case _:
                _log.info("job %s is at attempt %d, not %d", job_id, new_attempt, attempt)
        return False

    async def end(self, queue: str, job_id: str, error: FleetError) -> None:
        """Fail a job that nobody runs, and forget it."""
        last_word = Failed(code=error.code, message=error.message, retryable=error.retryable)
        await self._connection.run(
            END,
            [names.record(job_id), names.log(job_id), names.LIVE, names.DEADLINES],
            [job_id, names.channel(job_id), "failed", self._ttl_s, _fields(last_word)],
        )
        worker = await self.release(queue, job_id, None)
        if worker:
            await self._connection.command("PUBLISH", names.worker_channel(worker), job_id)

    async def release_worker(self, worker: str) -> int:
        """Hand over every lease of a worker that is known to be dead. Returns how many."""
        moved = 0
        for queue in await self._queues():
            flat = await self._connection.command("HGETALL", names.holders(queue))
            for id, text in flat.items():
                holder = Holder.parse(text.decode())
                if holder.worker == worker:
                    moved += await self.hand_over(
                        queue, id.decode(), holder.attempt, reason="its worker died", counts=True
                    )
        return moved

    async def reap(self) -> int:
        """Look once for leases that have expired and tickets that were lost.

        Returns how many jobs moved; raises RelayUnavailable.
        """
        moved = 0
        for queue in await self._queues():
            flat = await self._connection.run(
                EXPIRED, [names.leases(queue), names.holders(queue)], [_REAPED_AT_ONCE]
            )
            for id, text in zip(flat[::2], flat[1::2], strict=True):
                moved += await self._reap_one(queue, id.decode(), text.decode())
            await self._top_up(queue)
        return moved

    async def _top_up(self, queue: str) -> None:
        keys = [names.backlog(queue), queue, names.leases(queue), names.QUEUES]
        tickets = [ticket(queue) for _ in range(_TICKETS_AT_ONCE)]
        await self._connection.run(TOP_UP, keys, [queue, self._ttl_s, *tickets])

    async def _reap_one(self, queue: str, job_id: str, holder: str) -> bool:
        if not holder:
            await self.release(queue, job_id, None)
            return False
        _log.warning("the lease on job %s expired in the hands of %s", job_id, holder)
        return await self.hand_over(
            queue,
            job_id,
            Holder.parse(holder).attempt,
            reason="its worker fell silent",
            counts=True,
        )

    async def give_back(self, queue: str, job_id: str, old: int, new: int) -> bool:
        """Put a job back into the backlog as attempt `new`, if attempt `old` or nobody has it."""
        record = await self._records.find(job_id)
        if record is None:
            return False
        keys = [
            names.backlog(queue), names.facts(queue), names.leases(queue), names.holders(queue),
            queue, names.QUEUES,
        ]  # fmt: skip
        facts = facts_of(record, start=record.created_at + SLACK_S[record.priority])
        args: list[Argument] = [job_id, old, new, ticket(queue), queue, facts]
        return bool(await self._connection.run(RETURN, keys, args))

    async def _queues(self) -> list[str]:
        members: Any = await self._connection.command("ZRANGE", names.QUEUES, 0, -1)
        return sorted(member.decode() for member in members)

    @property
    def _ttl_s(self) -> int:
        return int(self._connection.settings.log_ttl_s)


def _fields(event: Queued | Failed) -> str:
    """The event's JSON without its opening brace, to which a script adds id and time."""
    return event.model_dump_json()[1:]
