#!lua flags=allow-oom
-- KEYS file index stored sizes sums; ARGV id name
-- Deletes a file's record; its bytes are due for deletion now, and are not counted any more.
-- Returns 1; 0: there was no record.
-- include shared/sizes.lua
local time = redis.call('TIME')
local deleted = redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
if deleted == 1 then
    redis.call('ZADD', KEYS[3], time[1], ARGV[2])
    if redis.call('HEXISTS', KEYS[4], ARGV[2]) == 1 then resize(KEYS[4], KEYS[5], ARGV[2], '', 0) end
end
return deleted
