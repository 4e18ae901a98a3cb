#!lua flags=allow-oom
-- KEYS receipt deletions; ARGV tenant at (field value)...
-- Begins the receipt of a deletion and lists it among those that are under way. Of one that is under
-- way the receipt stays; it is listed again if that was lost. A full Redis runs it, too: it makes
-- room. Returns 1.
local receipt, deletions = unpack(KEYS)
local tenant, at = unpack(ARGV, 1, 2)
if redis.call('HGET', receipt, 'status') ~= 'running' then
    redis.call('DEL', receipt)
    redis.call('HSET', receipt, unpack(ARGV, 3))
end
redis.call('ZADD', deletions, 'NX', at, tenant)
return 1
