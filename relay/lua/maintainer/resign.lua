#!lua flags=allow-oom
-- KEYS maintainer; ARGV worker channel
-- Gives the lease back and publishes an empty message. Returns 1; 0: the worker does not have it.
local worker, channel = unpack(ARGV)
if redis.call('GET', KEYS[1]) ~= worker then return 0 end
redis.call('DEL', KEYS[1])
redis.call('PUBLISH', channel, '')
return 1
