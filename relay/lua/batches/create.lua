#!lua
-- KEYS batch rows parts live index sharing stored held
-- ARGV id window_s spare_s parts_name input_name limit not_before (unix seconds, 0: none) (field
--   value)...
-- Creates a batch, unless it exists; its window begins at not_before. Returns the record (HGETALL); false: the tenant's limit of
-- batches is reached.
-- include shared/batch.lua
-- include shared/listing.lua
local stored, held = KEYS[7], KEYS[8]
local id, window_s, spare_s, parts_name, input_name, limit, not_before = unpack(ARGV, 1, 7)
if redis.call('EXISTS', batch) == 0 then
    if redis.call('SCARD', sharing) >= tonumber(limit) then return false end
    local expires_at = math.max(now, not_before) + window_s
    redis.call('HSET', batch, 'status', 'validating', 'created_at', exact(now),
               'expires_at', exact(expires_at), unpack(ARGV, 8))
    redis.call('ZADD', live, 0, id)
    redis.call('SADD', sharing, id)
    list(index, id, expires_at - now + 31 * 86400)
    redis.call('ZADD', stored, exact(expires_at + 30 * 86400), parts_name)
    local held_until = tonumber(redis.call('ZSCORE', held, input_name) or 0)
    redis.call('ZADD', held, exact(math.max(held_until, expires_at + spare_s)), input_name)
end
return redis.call('HGETALL', batch)
