#!lua flags=allow-oom
-- KEYS key keys record; ARGV job
-- Deletes a key whose job was not accepted. Returns 1; 0: it belongs to another job, or its job
-- was accepted.
local key, keys, record = unpack(KEYS)
if redis.call('HGET', key, 'job') ~= ARGV[1] then return 0 end
local status, tries = unpack(redis.call('HMGET', record, 'status', 'tries'))
if status and not (status == 'failed' and tonumber(tries) == 0) then return 0 end
redis.call('ZREM', keys, key)
return redis.call('DEL', key)
