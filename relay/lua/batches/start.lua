#!lua flags=allow-oom
-- KEYS batch rows parts live index sharing; ARGV token total
-- Starts a validated batch of total rows, unless its time has not come. Returns 1; 0: it has not; 1
-- also if it is being cancelled; false: the lease is lost.
-- include shared/driven.lua
-- include shared/time.lua
redis.call('HSET', batch, 'total', ARGV[2])
if get('status') == 'validating' then
    if tonumber(get('not_before') or 0) > now then return 0 end
    redis.call('HSET', batch, 'status', 'in_progress', 'in_progress_at', exact(now))
end
return 1
