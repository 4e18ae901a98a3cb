#!lua
-- KEYS record dead; ARGV id new_id
-- Chooses the id of the job that repeats a dead one; the first choice is kept. Returns {id, 1 if
-- the retry may not have been enqueued yet, else 0}; false: the job is not a dead letter.
local record, dead = unpack(KEYS)
local id, new_id = unpack(ARGV)
local dead_at, retried_as = unpack(redis.call('HMGET', record, 'dead_at', 'retried_as'))
if not dead_at then return false end
if not retried_as then
    retried_as = new_id
    redis.call('HSET', record, 'retried_as', retried_as)
end
return {retried_as, redis.call('ZSCORE', dead, id) and 1 or 0}
