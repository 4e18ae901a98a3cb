#!lua
-- KEYS batch rows parts live index sharing stored held
-- ARGV id window_s spare_s parts_name input_name limit most_kept record_pattern not_before (unix
--   seconds, 0: none) (field value)...
-- Keys beyond KEYS: the records of the tenant's oldest batches.
-- Creates a batch, unless it exists; its window begins at not_before. Of those that have ended the
-- oldest go, if the tenant has more than most_kept. Returns the record (HGETALL); false: the tenant's
-- limit of batches is reached.
-- include shared/batch.lua
-- include shared/key_pattern.lua
-- include shared/listing.lua
local stored, held = KEYS[7], KEYS[8]
local id, window_s, spare_s, parts_name, input_name, limit, most_kept = unpack(ARGV, 1, 7)
local record_of, not_before = keys_like(ARGV[8]), tonumber(ARGV[9])
local most_at_once = 16
local function drop_oldest()
    local living = redis.call('SCARD', sharing)
    local over = math.min(redis.call('ZCARD', index) - living - most_kept, most_at_once)
    if over <= 0 then return end
    for _, old in ipairs(redis.call('ZRANGE', index, 0, living + over - 1)) do
        if over > 0 and redis.call('SISMEMBER', sharing, old) == 0 then
            redis.call('ZREM', index, old)
            redis.call('DEL', record_of(old))
            over = over - 1
        end
    end
end
if redis.call('EXISTS', batch) == 0 then
    if redis.call('SCARD', sharing) >= tonumber(limit) then return false end
    local expires_at = math.max(now, not_before) + window_s
    redis.call('HSET', batch, 'status', 'validating', 'created_at', exact(now),
               'expires_at', exact(expires_at), unpack(ARGV, 10))
    redis.call('ZADD', live, 0, id)
    redis.call('SADD', sharing, id)
    list(index, id, expires_at - now + 31 * 86400)
    drop_oldest()
    redis.call('ZADD', stored, exact(expires_at + 30 * 86400), parts_name)
    local held_until = tonumber(redis.call('ZSCORE', held, input_name) or 0)
    redis.call('ZADD', held, exact(math.max(held_until, expires_at + spare_s)), input_name)
end
return redis.call('HGETALL', batch)
