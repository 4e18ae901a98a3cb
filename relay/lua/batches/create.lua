#!lua
-- KEYS batch rows parts live index sharing stored held
-- ARGV id window_s spare_s parts_name input_name limit (field value)...
-- Creates a batch, unless it exists. Returns the record (HGETALL); false: the tenant's limit of
-- batches is reached.
-- include shared/batch.lua
-- include shared/listing.lua
local stored, held = KEYS[7], KEYS[8]
local id, window_s, spare_s, parts_name, input_name, limit = unpack(ARGV, 1, 6)
if redis.call('EXISTS', batch) == 0 then
    if redis.call('SCARD', sharing) >= tonumber(limit) then return false end
    local expires_at = now + window_s
    redis.call('HSET', batch, 'status', 'validating', 'created_at', exact(now),
               'expires_at', exact(expires_at), unpack(ARGV, 7))
    redis.call('ZADD', live, 0, id)
    redis.call('SADD', sharing, id)
    list(index, id, window_s + 31 * 86400)
    redis.call('ZADD', stored, exact(expires_at + 30 * 86400), parts_name)
    local held_until = tonumber(redis.call('ZSCORE', held, input_name) or 0)
    redis.call('ZADD', held, exact(math.max(held_until, expires_at + spare_s)), input_name)
end
return redis.call('HGETALL', batch)
