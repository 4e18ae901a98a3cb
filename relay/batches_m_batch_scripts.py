"""The scripts of a batch's life (relay/batches.py calls them).

KEYS are, in all of them: batch rows parts live index sharing. Those of a driver have its token as
ARGV[1], and do nothing for any other.
"""

from typing import Final

from relay.files import REGISTER

_TIME: Final = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local function exact(at) return string.format('%.6f', at) end
"""
_PRELUDE: Final = """
local batch, rows, parts, live, index, sharing = unpack(KEYS)
local function get(field) return redis.call('HGET', batch, field) end
"""
_DRIVEN: Final = (
    "#!lua flags=allow-oom\n"
    + _PRELUDE
    + """
if get('driver') ~= ARGV[1] then return false end
"""
)

CREATE: Final = (
    "#!lua\n"
    + _PRELUDE
    + REGISTER
    + """
-- KEYS ... stored held; ARGV id window_s spare_s parts input most (field value)...
local stored, held = KEYS[7], KEYS[8]
if redis.call('EXISTS', batch) == 0 then
    if redis.call('SCARD', sharing) >= tonumber(ARGV[6]) then return false end
    local expires_at = now + ARGV[2]
    redis.call('HSET', batch, 'status', 'validating', 'created_at', exact(now),
               'expires_at', exact(expires_at), unpack(ARGV, 7))
    redis.call('ZADD', live, 0, ARGV[1])
    redis.call('SADD', sharing, ARGV[1])
    listed(index, now, ARGV[1], ARGV[2] + 31 * 86400)
    redis.call('ZADD', stored, exact(expires_at + 30 * 86400), ARGV[4])
    local until_ = tonumber(redis.call('ZSCORE', held, ARGV[5]) or 0)
    redis.call('ZADD', held, exact(math.max(until_, expires_at + ARGV[3])), ARGV[5])
end
return redis.call('HGETALL', batch)
"""
)
"""Begin a batch, and hold its input. Returns its record; nothing: the tenant has too many."""

TAKE: Final = (
    "#!lua flags=allow-oom\n"
    + _PRELUDE
    + _TIME
    + """
-- ARGV id token lease_s
local leased_until = redis.call('ZSCORE', live, ARGV[1])
if not leased_until then return false end
if get('driver') ~= ARGV[2] then
    if tonumber(leased_until) > now then return false end
    redis.call('HSET', batch, 'driver', ARGV[2])
    redis.call('HDEL', batch, 'pending_completed', 'pending_failed')
end
redis.call('ZADD', live, exact(now + ARGV[3]), ARGV[1])
return redis.call('HGETALL', batch)
"""
)
"""Lease a batch that nobody drives. Returns its record, or nothing."""

RENEW: Final = (
    _DRIVEN
    + _TIME
    + """
-- ARGV token lease_s pending_completed pending_failed
redis.call('ZADD', live, 'XX', exact(now + ARGV[2]), get('id'))
redis.call('HSET', batch, 'pending_completed', ARGV[3], 'pending_failed', ARGV[4])
local members = redis.call('SMEMBERS', sharing)
local driven = 0
for _, until_ in ipairs(members[1] and redis.call('ZMSCORE', live, unpack(members)) or {}) do
    if until_ and tonumber(until_) > now then driven = driven + 1 end
end
return {get('status'), exact(now), driven}
"""
)
"""Hold a batch for longer. Returns its status, now, and how many share the tenant's window."""

FREE: Final = (
    _DRIVEN
    + """
redis.call('HDEL', batch, 'driver')
redis.call('ZADD', live, 'XX', 0, get('id'))
return 1
"""
)
"""Let go of a batch."""

START: Final = (
    _DRIVEN
    + _TIME
    + """
-- ARGV token total
redis.call('HSET', batch, 'total', ARGV[2])
if get('status') == 'validating' then
    redis.call('HSET', batch, 'status', 'in_progress', 'in_progress_at', exact(now))
end
return 1
"""
)
"""Say that the input is good. A batch that is being cancelled stays so."""

ISSUE: Final = (
    _DRIVEN
    + """
-- ARGV token rows
redis.call('HSET', batch, 'issued', math.max(tonumber(get('issued') or 0), ARGV[2]))
return 1
"""
)
"""Say up to which row jobs may exist."""

COMMIT: Final = (
    _DRIVEN
    + """
-- ARGV token part completed failed prompt completion cached reasoning row...
if get('last_part') == ARGV[2] then return 1 end
for i = 9, #ARGV do
    if redis.call('GETBIT', rows, ARGV[i]) == 1 then return 0 end
end
for i = 9, #ARGV do redis.call('SETBIT', rows, ARGV[i], 1) end
redis.call('RPUSH', parts, ARGV[2])
for i, field in ipairs({'completed', 'failed', 'prompt_tokens', 'completion_tokens',
                        'cached_tokens', 'reasoning_tokens'}) do
    redis.call('HINCRBY', batch, field, ARGV[2 + i])
end
redis.call('HSET', batch, 'last_part', ARGV[2])
redis.call('HDEL', batch, 'pending_completed', 'pending_failed')
return 1
"""
)
"""List a part, mark its rows, count them: all or nothing. 0: a row had its answer before."""

CANCEL: Final = (
    "#!lua flags=allow-oom\n"
    + _PRELUDE
    + _TIME
    + """
local status, changed = get('status'), 0
if status == 'validating' or status == 'in_progress' then
    redis.call('HSET', batch, 'status', 'cancelling', 'cancelling_at', exact(now))
    changed = 1
end
local fields = redis.call('HGETALL', batch)
table.insert(fields, 1, changed)
return fields
"""
)
"""Ask for the end. Returns whether that is new, and the record."""

FINALIZE: Final = (
    _DRIVEN
    + _TIME
    + """
-- ARGV token gives_up
if get('status') == 'in_progress' then
    redis.call('HSET', batch, 'status', 'finalizing', 'finalizing_at', exact(now))
    if ARGV[2] == '1' then redis.call('HSET', batch, 'gives_up', 1) end
end
return {get('status'), get('gives_up') or ''}
"""
)
"""Say that no more rows are run. Returns the status, which a cancel may have changed before."""

FINISH: Final = (
    _DRIVEN
    + REGISTER
    + """
-- KEYS ... stored files output errors
-- ARGV token id status line_errors parts keep_s ttl_s (id name json) (id name json)
if ARGV[3] ~= 'failed'
        and redis.call('BITCOUNT', rows) < tonumber(get('total') or 0) then return 0 end
for i, field in ipairs({'output_file_id', 'error_file_id'}) do
    local at = 5 + i * 3
    if ARGV[at] ~= '' then
        register(KEYS[8 + i], KEYS[8], KEYS[7], ARGV[at], ARGV[at + 1], ARGV[at + 2],
                 tonumber(ARGV[7]), now)
        redis.call('HSET', batch, field, ARGV[at])
    end
end
if ARGV[4] ~= '' then redis.call('HSET', batch, 'errors', ARGV[4]) end
redis.call('HSET', batch, 'status', ARGV[3], ARGV[3] .. '_at', exact(now))
redis.call('HDEL', batch, 'driver', 'issued', 'last_part', 'gives_up', 'pending_completed',
           'pending_failed')
redis.call('EXPIRE', batch, ARGV[6])
redis.call('DEL', rows, parts)
redis.call('ZREM', live, ARGV[2])
redis.call('SREM', sharing, ARGV[2])
redis.call('ZADD', KEYS[7], exact(now), ARGV[5])
return 1
"""
)
"""End a batch. 0: there are rows without an answer."""
