#!lua flags=allow-oom
-- KEYS maintainer; ARGV worker channel
-- Releases the lease and publishes an empty message. Returns 1; 0: the worker does not hold it.
local worker, channel = unpack(ARGV)
if redis.pcall('GET', KEYS[1]) ~= worker then return 0 end
redis.call('DEL', KEYS[1])
redis.call('PUBLISH', channel, '')
return 1
