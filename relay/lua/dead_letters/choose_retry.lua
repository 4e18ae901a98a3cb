#!lua
-- KEYS record dead; ARGV id new_id
-- Returns the id of the job that repeats the dead one, the first that was chosen, and 1 as long
-- as that may not have been enqueued; false: the job is no dead letter.
local record, dead = unpack(KEYS)
local id, new_id = unpack(ARGV)
local dead_at, retried_as = unpack(redis.call('HMGET', record, 'dead_at', 'retried_as'))
if not dead_at then return false end
if not retried_as then
    retried_as = new_id
    redis.call('HSET', record, 'retried_as', retried_as)
end
return {retried_as, redis.call('ZSCORE', dead, id) and 1 or 0}
