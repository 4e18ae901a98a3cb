#!lua flags=allow-oom
-- KEYS keys; ARGV ttl_s renew_s limit record_pattern
-- Keys beyond KEYS: the members of keys that are due, and the records of their jobs.
-- Extends keys so that each lives as long as its job's record. Returns the number of keys that
-- were due.
-- include shared/idempotency.lua
local keys = KEYS[1]
local ttl_s, renew_s, limit, record_pattern = unpack(ARGV)
local record = keys_like(record_pattern)
local due = redis.call('ZRANGEBYSCORE', keys, '-inf', now, 'LIMIT', 0, limit)
for _, key in ipairs(due) do
    local row = redis.pcall('HMGET', key, 'job', 'at')
    local job, at = row[1], tonumber(row[2] or 0) or 0  -- of another type of key: neither
    local left_ms = job and redis.call('PTTL', record(job)) or -2
    if not job then
        redis.call('ZREM', keys, key)
    elseif left_ms == -2 and now - at > settled_s then
        redis.call('ZREM', keys, key)
        redis.call('DEL', key)
    elseif left_ms > 0 then
        redis.call('ZREM', keys, key)
        redis.call('PEXPIRE', key, left_ms)
    else
        redis.call('EXPIRE', key, ttl_s)
        redis.call('ZADD', keys, string.format('%.3f', now + renew_s), key)
    end
end
return #due
