#!lua flags=allow-oom
-- KEYS file index stored; ARGV id name
-- Returns 1 if the record existed, else 0. The bytes are due from now on.
local time = redis.call('TIME')
local deleted = redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
if deleted == 1 then redis.call('ZADD', KEYS[3], time[1], ARGV[2]) end
return deleted
