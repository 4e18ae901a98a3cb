#!lua flags=allow-oom
-- KEYS batch rows parts live index sharing; ARGV token
-- Releases the driver's lease. A batch whose input is valid and whose time has not come is next driven
-- then. Returns 1; false: it is lost.
-- include shared/driven.lua
local waits = get('status') == 'validating' and get('total')
redis.call('HDEL', batch, 'driver')
redis.call('ZADD', live, 'XX', waits and get('not_before') or 0, get('id'))
return 1
