#!lua flags=allow-oom
-- KEYS key keys; ARGV fingerprint job queue ('' to read only) ttl_s renew_s record_pattern
-- Keys beyond KEYS: the record of the key's job.
-- Binds an Idempotency-Key to a job. Returns {job, queue, 1} if the key is new, {job, queue, 0} if
-- it belongs to the same request, {job, queue, -1} if to another one; false: it has no job (only
-- when reading).
-- include shared/idempotency.lua
local key, keys = unpack(KEYS)
local fingerprint, new_job, new_queue, ttl_s, renew_s, record_pattern = unpack(ARGV)
local record = keys_like(record_pattern)
local known, job, queue, at = unpack(redis.call('HMGET', key, 'fingerprint', 'job', 'queue', 'at'))
if known then
    if known == fingerprint then return {job, queue, 0} end
    local exists = redis.call('EXISTS', record(job)) == 1
    if exists or now - at < settled_s then return {job, queue, -1} end
end
if new_queue == '' then return false end
redis.call('HSET', key, 'fingerprint', fingerprint, 'job', new_job, 'queue', new_queue,
           'at', exact(now))
redis.call('EXPIRE', key, ttl_s)
redis.call('ZADD', keys, string.format('%.3f', now + renew_s), key)
return {new_job, new_queue, 1}
