#!lua flags=allow-oom
-- KEYS followed; ARGV job grace_s
-- Starts the clock of a job without followers, unless one runs. Returns 1; 0: one runs.
-- include shared/time.lua
return redis.call('ZADD', KEYS[1], 'NX', exact(now + ARGV[2]), ARGV[1])
