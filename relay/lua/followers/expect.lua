#!lua flags=allow-oom
-- KEYS followed; ARGV job grace_s
-- Starts the timer of a job without followers. Returns 1; 0: it runs already.
-- include shared/time.lua
return redis.call('ZADD', KEYS[1], 'NX', exact(now + ARGV[2]), ARGV[1])
