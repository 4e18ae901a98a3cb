#!lua flags=allow-oom
-- KEYS receipt deletions; ARGV tenant status ended_at reason ttl_s
-- Ends a deletion: its receipt is kept for ttl_s seconds. Returns 1.
local receipt, deletions = unpack(KEYS)
local tenant, status, ended_at, reason, ttl_s = unpack(ARGV)
redis.call('HSET', receipt, 'status', status, 'ended_at', ended_at, 'reason', reason)
redis.call('HDEL', receipt, 'counted')
redis.call('EXPIRE', receipt, ttl_s)
redis.call('ZREM', deletions, tenant)
return 1
