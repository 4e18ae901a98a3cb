#!lua flags=allow-oom
-- KEYS record new_record; ARGV new_id
-- The retry was refused: the next one chooses a new id. Returns 1; 0: it had been accepted, or
-- another id was chosen.
local record, new_record = unpack(KEYS)
if redis.call('HGET', record, 'retried_as') ~= ARGV[1] then return 0 end
local status, tries = unpack(redis.call('HMGET', new_record, 'status', 'tries'))
if status and not (status == 'failed' and tonumber(tries) == 0) then return 0 end
return redis.call('HDEL', record, 'retried_as')
