#!lua flags=allow-oom
-- KEYS file index stored; ARGV id name
-- Deletes a file's record; its bytes are due for deletion now. Returns 1; 0: there was no record.
local time = redis.call('TIME')
local deleted = redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
if deleted == 1 then redis.call('ZADD', KEYS[3], time[1], ARGV[2]) end
return deleted
