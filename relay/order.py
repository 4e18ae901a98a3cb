"""Who is next: the backlog of a queue, ordered by one number per job, its virtual start.

The number is the time of arrival plus the slack of the job's class (contract/requests.py), so that
a standard job yields ten seconds to interactive ones and then stands before those that come later:
classes age by themselves and a position is a rank. A job that changes hands keeps its number.

Invariant: a job is in exactly one of backlog and leases while it lives, and has facts in both.
Each script may be run twice.
"""

import json
from typing import Final

from contract.jobs import JobRecord

ENQUEUE: Final = """
-- KEYS backlog facts queues tickets; ARGV id facts(without start) slack_s limit ticket queue
local known = redis.call('ZRANK', KEYS[1], ARGV[1])
if known then return known + 1 end
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 1 then return 0 end
local depth = redis.call('ZCARD', KEYS[1])
if depth >= tonumber(ARGV[4]) then return -1 end
local time = redis.call('TIME')
local start = time[1] + time[2] / 1e6 + ARGV[3]
local facts = cjson.decode(ARGV[2])
facts.start = start
redis.call('HSET', KEYS[2], ARGV[1], cjson.encode(facts))
redis.call('ZADD', KEYS[1], string.format('%.6f', start), ARGV[1])
redis.call('ZADD', KEYS[3], string.format('%.3f', start), ARGV[6])
if redis.call('LLEN', KEYS[4]) <= depth then redis.call('LPUSH', KEYS[4], ARGV[5]) end
return redis.call('ZRANK', KEYS[1], ARGV[1]) + 1
"""
"""Put a job into the backlog. Returns its position, 0 if it is held, -1 if there is no room.

A ticket is only sent where there are fewer tickets than waiting jobs: every ticket taken claims
one job or finds that nothing waits, so more would only cost (docs/adr/0001).
"""

CLAIM: Final = """
-- KEYS backlog facts leases holders; ARGV worker version lease_s look_ahead
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, ARGV[4] - 1)) do
    local text = redis.call('HGET', KEYS[2], id)
    if not text then
        redis.call('ZREM', KEYS[1], id)
    else
        local facts = cjson.decode(text)
        if facts.v <= tonumber(ARGV[2]) then
            redis.call('ZREM', KEYS[1], id)
            redis.call('ZADD', KEYS[3], string.format('%.6f', now + ARGV[3]), id)
            redis.call('HSET', KEYS[4], id, facts.attempt .. ' ' .. ARGV[1])
            return {id, facts.attempt, string.format('%.6f', now), facts.model or ''}
        end
    end
end
return false
"""
"""Pick the job that should run next and lease it. Returns id, attempt, now, model; or nothing.

A job in a version that the worker does not know is passed over and stays where it is.
"""

TOP_UP: Final = """
-- KEYS backlog tickets leases queues; ARGV queue idle_s ticket...
local time = redis.call('TIME')
local used_at = redis.call('ZSCORE', KEYS[4], ARGV[1])
if used_at and used_at + ARGV[2] < tonumber(time[1])
        and redis.call('ZCARD', KEYS[1]) == 0 and redis.call('ZCARD', KEYS[3]) == 0 then
    redis.call('ZREM', KEYS[4], ARGV[1])
end
local missing = redis.call('ZCARD', KEYS[1]) - redis.call('LLEN', KEYS[2])
local sent = 0
for i = 3, #ARGV do
    if sent >= missing then break end
    redis.call('LPUSH', KEYS[2], ARGV[i])
    sent = sent + 1
end
return sent
"""
"""Send the tickets that were lost: there must be as many as jobs that wait. Returns how many.

Also forgets the name of a queue that has been empty for `idle_s`.
"""

LOOK_AHEAD: Final = 32
"""Jobs that a claim may pass over before it gives up."""


def facts_of(record: JobRecord, *, start: float | None = None) -> str:
    """What a claim must know of a job (JSON); ENQUEUE adds `start`, the virtual start."""
    facts = {"v": record.v, "attempt": record.attempt, "model": record.model, "start": start}
    return json.dumps({name: value for name, value in facts.items() if value is not None})
