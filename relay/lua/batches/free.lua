#!lua flags=allow-oom
-- KEYS batch rows parts live index sharing; ARGV token
-- Returns 1; false: the lease is lost.
-- include shared/driven.lua
redis.call('HDEL', batch, 'driver')
redis.call('ZADD', live, 'XX', 0, get('id'))
return 1
