#!lua flags=allow-oom
-- KEYS stored; ARGV name keep_s
-- Postpones the deletion of an object to keep_s seconds from now. Returns 1.
local time = redis.call('TIME')
redis.call('ZADD', KEYS[1], time[1] + ARGV[2], ARGV[1])
return 1
