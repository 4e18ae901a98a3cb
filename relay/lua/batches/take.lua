#!lua flags=allow-oom
-- KEYS batch rows parts live index sharing; ARGV id token lease_s
-- Acquires the driver's lease. Returns the record (HGETALL); false: the batch has ended, or
-- another driver's lease is valid.
-- include shared/batch.lua
-- include shared/time.lua
local id, token, lease_s = unpack(ARGV)
local leased_until = redis.call('ZSCORE', live, id)
if not leased_until then return false end
if get('driver') ~= token then
    if tonumber(leased_until) > now then return false end
    redis.call('HSET', batch, 'driver', token)
    redis.call('HDEL', batch, 'pending_completed', 'pending_failed')
end
redis.call('ZADD', live, exact(now + lease_s), id)
return redis.call('HGETALL', batch)
