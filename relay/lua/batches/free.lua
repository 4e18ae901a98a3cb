#!lua flags=allow-oom
-- KEYS batch rows parts live index sharing; ARGV token
-- Releases the driver's lease. Returns 1; false: it is lost.
-- include shared/driven.lua
redis.call('HDEL', batch, 'driver')
redis.call('ZADD', live, 'XX', 0, get('id'))
return 1
