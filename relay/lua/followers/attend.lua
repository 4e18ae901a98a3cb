#!lua flags=allow-oom
-- KEYS record audience followed; ARGV job process lease_s
-- Registers a process as a follower, which stops the timer. Returns 1; false as
-- shared/followed.lua.
-- include shared/followed.lua
local process, lease_s = ARGV[2], ARGV[3]
redis.call('ZADD', audience, exact(now + lease_s), process)
redis.call('EXPIRE', audience, math.ceil(lease_s * 10))
redis.call('ZADD', followed, exact(now + lease_s), job)
return 1
