#!lua flags=allow-oom
-- KEYS keys; ARGV from count record_pattern
-- Keys beyond KEYS: members of keys, and the records of their jobs.
-- Deletes those of so many keys, from that place on, whose jobs have no record any more. Returns how
-- many were looked at, and how many of them are left.
-- include shared/idempotency.lua
local keys, from, count = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
local record, gone = keys_like(ARGV[3]), 0
local some = redis.call('ZRANGE', keys, from, from + count - 1)
for _, key in ipairs(some) do
    local row = redis.pcall('HMGET', key, 'job', 'at')
    local job, at = row[1], tonumber(row[2] or 0) or 0  -- of another type of key: neither
    if not job or now - at > settled_s and redis.call('EXISTS', record(job)) == 0 then
        redis.call('ZREM', keys, key)
        if job then redis.call('DEL', key) end
        gone = gone + 1
    end
end
return {#some, #some - gone}
