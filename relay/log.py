"""A job's log: how it is begun, added to, handed over, ended, read and followed.

Invariants, all kept by Redis itself: ids only rise (XADD refuses the others); whoever takes a job
from its holder writes `<attempt + 1>-0` first, so that the old holder can never add a word again;
after the last word nothing is added. An event is logged and published in one script, so that the
channel says exactly what the log says, in its order. Each script may be run twice.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Final, Literal

from contract import redis_keys
from contract.errors import JobNotFound
from contract.events import BEGINNING, Cursor, EventId, Frame, LogReset, Started
from contract.result import Fold, Result
from relay.connection import Connection
from relay.subscriber import Subscriber, Subscription


async def where(
    connection: Connection, job_id: str, cursor: Cursor
) -> Literal["ended", "lost", "open"]:
    """Whether a cursor is the log's end, is not in the log (any more), or has words after it.

    Raises JobNotFound, RelayUnavailable.
    """
    (seen, nonce), log = cursor, redis_keys.log(job_id)
    started = EventId(seen.attempt, 1)
    last, there, begun = await connection.pipeline(
        [
            ("XREVRANGE", log, "+", "-", "COUNT", 1),
            ("XRANGE", log, str(seen), str(seen)),
            ("XRANGE", log, str(started), str(started)),
        ]
    )
    if not last:
        raise JobNotFound(f"there is no job {job_id[:64]}, or its log has expired")
    if seen != BEGINNING:
        frames = [Frame.from_wire(frame_of(entry)) for entry in begun]
        if not there or (nonce and seen >= started and nonce_in(frames) != nonce):
            return "lost"
    frame = Frame.from_wire(frame_of(last[0]))
    return "ended" if frame.is_last and frame.id == seen else "open"


def nonce_in(frames: Sequence[Frame]) -> str | None:
    """The nonce of the last attempt that these frames begin."""
    for frame in reversed(frames):
        if frame.type == "started" and isinstance(event := frame.event, Started):
            return event.nonce
    return None


def frame_of(entry: Any) -> bytes:
    """The frame in an entry of a stream."""
    frame: bytes = entry[1][b"f"]
    return frame


async def live(
    ear: Subscription, cursor: EventId, idle_s: float
) -> AsyncGenerator[list[Frame], None]:
    """What is heard after the cursor; ends when something was missed, or to look after silence."""
    while True:
        if not await ear.wait(idle_s):
            yield []
            return
        if ear.behind:
            return
        frames: list[Frame] = []
        while ear.heard:
            frame = Frame.from_wire(ear.heard.popleft())
            if frame.id is None or frame.id <= cursor:  # heard and read
                continue
            # Where a new attempt begins, nobody knows how far the one before it had come.
            if frame.id != (cursor.attempt, cursor.seq + 1):
                ear.fall_behind()
                break
            cursor = frame.id
            frames.append(frame)
        if frames:
            yield frames


_SAY: Final = """
local function say(log, channel, attempt, seq, now, type, fields)
    local id = attempt .. '-' .. seq
    local body = '{"id":"' .. id .. '","at":' .. string.format('%.3f', now) .. ',' .. fields
    local frame = id .. ' ' .. type .. ' ' .. body
    redis.call('XADD', log, id, 'f', frame)
    redis.call('PUBLISH', channel, frame)
end
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local ended = {done = true, failed = true, cancelled = true}
"""
_DRAINS: Final = "#!lua flags=allow-oom\n"
"""Jobs that run can finish when Redis is full; only a new one is refused."""

BEGIN: Final = (
    "#!lua\n"
    + _SAY
    + """
-- KEYS record log live deadlines recent tenants_recent [single]
-- ARGV id channel queued deadline_s (field value)...
if redis.call('EXISTS', KEYS[1]) == 1 then
    return {ARGV[1], redis.call('HGET', KEYS[1], 'created_at')}
end
if KEYS[7] then
    local there = redis.call('GET', KEYS[7])
    local status = there and redis.call('HGET', 'fleet:j:' .. there .. ':record', 'status')
    if status and not ended[status] then return {there} end
    redis.call('SET', KEYS[7], ARGV[1], 'EX', 604800)
end
local at = string.format('%.6f', now)
redis.call('HSET', KEYS[1], 'created_at', at, unpack(ARGV, 5))
if ARGV[4] ~= '' then
    local deadline = string.format('%.6f', now + ARGV[4])
    redis.call('HSET', KEYS[1], 'deadline_at', deadline)
    redis.call('ZADD', KEYS[4], deadline, ARGV[1])
end
redis.call('ZADD', KEYS[3], at, ARGV[1])
redis.call('ZADD', KEYS[5], at, ARGV[1])
redis.call('ZADD', KEYS[6], at, ARGV[1])
redis.call('ZREMRANGEBYRANK', KEYS[6], 0, -100001)
redis.call('EXPIRE', KEYS[6], 2592000)
say(KEYS[2], ARGV[2], 1, 0, now, 'queued', ARGV[3])
return {ARGV[1], at}
"""
)
"""Write a job's record and its first word, `1-0`. Returns its id and when it was created.

With a key for jobs of which one is enough, returns the id of the one that lives, if one does.
"""

START: Final = (
    _DRAINS
    + _SAY
    + """
-- KEYS record log; ARGV channel attempt worker nonce started
local status, attempt, nonce = unpack(redis.call('HMGET', KEYS[1], 'status', 'attempt', 'nonce'))
if attempt ~= ARGV[2] then return false end
if status == 'running' and nonce == ARGV[4] then
    return {redis.call('XLEN', KEYS[2]), redis.call('HGETALL', KEYS[1])}
end
if status ~= 'queued' then return false end
redis.call('HSET', KEYS[1], 'status', 'running', 'started_at', string.format('%.6f', now),
           'worker', ARGV[3], 'nonce', ARGV[4])
redis.call('HINCRBY', KEYS[1], 'tries', 1)
say(KEYS[2], ARGV[1], attempt, 1, now, 'started', ARGV[5])
return {redis.call('XLEN', KEYS[2]), redis.call('HGETALL', KEYS[1])}
"""
)
"""Say `started` for a claimed job. Returns how long its log is, and its record.

Returns nothing if the claim is out of date; run again after a lost answer, the same as before.
"""

APPEND: Final = (
    _DRAINS
    + """
-- KEYS log...; ARGV ttl_s live deadlines, then per log: nonce length frame status
local answer = {}
for i, log in ipairs(KEYS) do
    local a = 3 + (i - 1) * 4
    local nonce, length = ARGV[a + 1], tonumber(ARGV[a + 2])
    local frame, status = ARGV[a + 3], ARGV[a + 4]
    local id, job = string.match(frame, '^%S+'), string.sub(log, 1, -4)
    local record = job .. 'record'
    local there, holder = redis.call('XLEN', log), redis.call('HGET', record, 'nonce')
    if there == length and holder == nonce then
        redis.call('XADD', log, id, 'f', frame)
        redis.call('PUBLISH', job .. 'events', frame)
        answer[i] = 1
        if status ~= '' then
            local time = redis.call('TIME')
            redis.call('HSET', record, 'status', status, 'ended_at',
                       string.format('%.6f', time[1] + time[2] / 1e6))
            redis.call('HDEL', record, 'nonce')
            redis.call('EXPIRE', record, ARGV[1])
            redis.call('EXPIRE', log, ARGV[1])
            redis.call('ZREM', ARGV[2], string.sub(job, 9, -2))
            redis.call('ZREM', ARGV[3], string.sub(job, 9, -2))
        end
    else
        local same = redis.call('XRANGE', log, id, id)[1]
        if same and same[2][2] == frame then answer[i] = 1
        elseif there < length and holder == nonce then answer[i] = 2
        else answer[i] = 0 end
    end
end
return answer
"""
)
"""Add many frames, to many logs, in one call. Returns per frame what became of it:

1 it stands; 0 it was refused, because somebody else has the job (another nonce is in the record);
2 the log is shorter than what this attempt has written: Redis has come back with a shorter past.
A frame that stands already with the same bytes counts as written: after a lost answer the batch
is sent again. A frame with a status is its job's last word and closes the record. Names of
record and channel are made from the log's (contract/redis_keys.py): few arguments are a cheap call.
"""

HAND_OVER: Final = (
    _DRAINS
    + _SAY
    + """
-- KEYS record log; ARGV channel attempt counts queued is_lost
local status, attempt, tries, most =
    unpack(redis.call('HMGET', KEYS[1], 'status', 'attempt', 'tries', 'max_attempts'))
if not status or ended[status] then return {'ended', 0} end
local before = tonumber(ARGV[2])
if tonumber(attempt) == before + 1 and status == 'queued' then return {'queued', before + 1} end
if tonumber(attempt) ~= before then return {'stale', tonumber(attempt)} end
if ARGV[3] == '1' then
    if tonumber(tries) >= tonumber(most) then return {'exhausted', before} end
elseif status == 'running' then
    redis.call('HINCRBY', KEYS[1], 'tries', -1)
end
redis.call('HSET', KEYS[1], 'attempt', before + 1, 'status', 'queued')
redis.call('HDEL', KEYS[1], 'nonce')
if ARGV[5] == '1' then redis.call('HINCRBY', KEYS[1], 'lost', 1) end
say(KEYS[2], ARGV[1], before + 1, 0, now, 'queued', ARGV[4])
return {'queued', before + 1}
"""
)
"""Take a job from its holder: the attempt rises and the log says so.

Returns what the job is now and its attempt: queued; ended; stale (somebody else took it);
exhausted (it may not be tried again, and nothing was written).
"""

END: Final = (
    _DRAINS
    + _SAY
    + """
-- KEYS record log live deadlines dead; ARGV id channel status ttl_s last_word is_dead
local status, attempt = unpack(redis.call('HMGET', KEYS[1], 'status', 'attempt'))
if not status then
    redis.call('ZREM', KEYS[3], ARGV[1])
    redis.call('ZREM', KEYS[4], ARGV[1])
    return 0
end
if ended[status] then return 0 end
attempt = tonumber(attempt) + 1
redis.call('HSET', KEYS[1], 'attempt', attempt, 'status', ARGV[3],
           'ended_at', string.format('%.6f', now))
redis.call('HDEL', KEYS[1], 'nonce')
say(KEYS[2], ARGV[2], attempt, 0, now, ARGV[3], ARGV[5])
if ARGV[6] == '1' then
    redis.call('HSET', KEYS[1], 'dead_at', string.format('%.6f', now))
    redis.call('ZADD', KEYS[5], string.format('%.6f', now), ARGV[1])
end
redis.call('EXPIRE', KEYS[1], ARGV[4])
redis.call('EXPIRE', KEYS[2], ARGV[4])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('ZREM', KEYS[4], ARGV[1])
return 1
"""
)
"""Take a job from whoever has it and say its last word; a dead letter is listed as such.

Returns 0 if it had ended before.
"""

_START: Final = Cursor()
_LOST: Final = "the log does not hold this cursor (any more): Redis came back with a shorter past"
_PAGE: Final = 256
_HEAVY_PAGE: Final = 8
"""Entries to ask for at a time after a page of many bytes: vectors and images are large."""
_HEAVY_BYTES: Final = 2**20


def ending_keys(job_id: str) -> list[str]:
    """The keys of END."""
    return [
        redis_keys.record(job_id),
        redis_keys.log(job_id),
        redis_keys.LIVE,
        redis_keys.DEADLINES,
        redis_keys.DEAD,
    ]


class Log:
    """Reads and follows logs."""

    def __init__(self, connection: Connection, reader: Subscriber) -> None:
        """Read through the connection; hear what is new through the reader."""
        self._connection = connection
        self._reader = reader

    async def read(
        self, job_id: str, after: EventId = BEGINNING
    ) -> AsyncGenerator[list[Frame], None]:
        """What the log holds now after the cursor, a page at a time; raises RelayUnavailable."""
        cursor, count = after, _HEAVY_PAGE
        while True:
            entries: list[Any] = await self._connection.command(
                "XRANGE", redis_keys.log(job_id), f"({cursor}", "+", "COUNT", count
            )
            frames = [Frame.from_wire(frame_of(entry)) for entry in entries]
            if frames:
                yield frames
                cursor = frames[-1].id or cursor
            if len(frames) < count:
                return
            size_bytes = sum(len(frame.body) for frame in frames)
            count = _HEAVY_PAGE if size_bytes * _PAGE > _HEAVY_BYTES * count else _PAGE

    async def result(self, job_id: str) -> Result:
        """The answer so far; raises RelayUnavailable."""
        return (await self.fold(job_id)).result

    async def fold(self, job_id: str) -> Fold:
        """Everything said so far, put together; raises RelayUnavailable."""
        answer = Fold()
        async with aclosing(self.read(job_id)) as pages:
            async for frames in pages:
                for frame in frames:
                    answer.add(frame.event)
        return answer

    async def is_at_its_end(self, job_id: str, cursor: Cursor) -> bool:
        """Whether nothing will ever come after the cursor; raises JobNotFound, RelayUnavailable."""
        return await where(self._connection, job_id, cursor) == "ended"

    async def follow(
        self, job_id: str, after: Cursor = _START, *, idle_s: float = 15.0
    ) -> AsyncGenerator[list[Frame], None]:
        """Everything after the cursor, as it comes, until after the last word.

        Yields all that is new at each wake, in order, each event once; an empty list after
        `idle_s` of silence. A cursor that the log does not hold, or that belongs to another
        attempt of that number, is answered with `log_reset` and the whole log. Raises
        JobNotFound, RelayUnavailable.
        """
        cursor, nonce = after
        async with self._reader.hear(redis_keys.channel(job_id)) as ear:
            while True:
                ear.catch_up()
                standing = await where(self._connection, job_id, Cursor(cursor, nonce))
                if standing == "ended":
                    return
                if standing == "lost":
                    yield [Frame.of(None, self._connection.now(), LogReset(reason=_LOST))]
                    cursor, nonce = BEGINNING, None
                async with aclosing(self._stored_then_live(job_id, ear, cursor, idle_s)) as pages:
                    async for frames in pages:
                        yield frames
                        cursor = frames[-1].id or cursor if frames else cursor
                        nonce = nonce_in(frames) or nonce
                        if frames and frames[-1].is_last:
                            return

    async def _stored_then_live(
        self, job_id: str, ear: Subscription, cursor: EventId, idle_s: float
    ) -> AsyncGenerator[list[Frame], None]:
        async with aclosing(self.read(job_id, cursor)) as pages:
            async for frames in pages:
                yield frames
                cursor = frames[-1].id or cursor
        async with aclosing(live(ear, cursor, idle_s)) as news:
            async for frames in news:
                yield frames
