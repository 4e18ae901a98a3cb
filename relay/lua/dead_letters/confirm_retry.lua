#!lua flags=allow-oom
-- KEYS record dead; ARGV id chosen_id new_id
-- The retry is enqueued, as new_id: the dead letter leaves the list. Returns 1 if it was in it.
local record, dead = unpack(KEYS)
local id, chosen_id, new_id = unpack(ARGV)
if redis.call('HGET', record, 'retried_as') == chosen_id then
    redis.call('HSET', record, 'retried_as', new_id)
end
return redis.call('ZREM', dead, id)
