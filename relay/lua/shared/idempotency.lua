-- Defines settled_s: a key without a job's record for that many seconds counts as unused. Defines
-- hold(...), which binds an Idempotency-Key to a job unless it has one. It returns {job, queue,
-- state}; the state is 1 if the key is new, also if this is repeated after a lost reply; 0 if it
-- belongs to the same request, -1 if to another one; false: it has no job (only if queue is '', to
-- read it).
-- include shared/time.lua
-- include shared/key_pattern.lua
local settled_s = 60
local function hold(key, keys, fingerprint, new_job, new_queue, ttl_s, renew_s, record_pattern)
    local known, job, queue, at =
        unpack(redis.call('HMGET', key, 'fingerprint', 'job', 'queue', 'at'))
    if known then
        if known == fingerprint then return {job, queue, job == new_job and 1 or 0} end
        local exists = redis.call('EXISTS', keys_like(record_pattern)(job)) == 1
        if exists or now - (tonumber(at) or 0) < settled_s then return {job, queue, -1} end
    end
    if new_queue == '' then return false end
    redis.call('HSET', key, 'fingerprint', fingerprint, 'job', new_job, 'queue', new_queue,
               'at', exact(now))
    redis.call('EXPIRE', key, ttl_s)
    redis.call('ZADD', keys, string.format('%.3f', now + renew_s), key)
    return {new_job, new_queue, 1}
end
