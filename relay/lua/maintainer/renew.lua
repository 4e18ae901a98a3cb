#!lua flags=allow-oom
-- KEYS maintainer; ARGV worker ttl_ms channel
-- Acquires or renews the lease and publishes the worker's name. Returns 1; 0: another worker has
-- it.
local maintainer = KEYS[1]
local worker, ttl_ms, channel = unpack(ARGV)
local holder = redis.pcall('GET', maintainer)  -- a table: of another type, and replaced
if type(holder) == 'string' and holder ~= worker then return 0 end
redis.call('SET', maintainer, worker, 'PX', ttl_ms)
redis.call('PUBLISH', channel, worker)
return 1
