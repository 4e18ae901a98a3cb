#!lua flags=allow-oom
-- KEYS record dead; ARGV id chosen_id new_id
-- The retry was enqueued as new_id: removes the dead letter from the list. Returns 1; 0: it was
-- not in the list.
local record, dead = unpack(KEYS)
local id, chosen_id, new_id = unpack(ARGV)
if redis.call('HGET', record, 'retried_as') == chosen_id then
    redis.call('HSET', record, 'retried_as', new_id)
end
return redis.call('ZREM', dead, id)
