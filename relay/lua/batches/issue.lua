#!lua flags=allow-oom
-- KEYS batch rows parts live index sharing; ARGV token rows
-- Records that rows up to this number may have jobs. Returns 1; false: the lease is lost.
-- include shared/driven.lua
redis.call('HSET', batch, 'issued', math.max(tonumber(get('issued') or 0), ARGV[2]))
return 1
