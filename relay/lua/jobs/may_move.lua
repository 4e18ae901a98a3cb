#!lua flags=allow-oom
-- KEYS movable; ARGV id wait_s
-- Has the maintainer look at a job in wait_s seconds. Returns 1.
-- include shared/time.lua
redis.call('ZADD', KEYS[1], exact(now + ARGV[2]), ARGV[1])
return 1
