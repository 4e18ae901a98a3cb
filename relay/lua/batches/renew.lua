#!lua flags=allow-oom
-- KEYS batch rows parts live index sharing; ARGV token lease_s pending_completed pending_failed
-- Renews the driver's lease and stores the counts of rows not yet in a part. Returns {status, now,
-- number of the tenant's batches that have a driver}; false: the lease is lost.
-- include shared/driven.lua
-- include shared/time.lua
redis.call('ZADD', live, 'XX', exact(now + ARGV[2]), get('id'))
redis.call('HSET', batch, 'pending_completed', ARGV[3], 'pending_failed', ARGV[4])
local members = redis.call('SMEMBERS', sharing)
local driven = 0
for _, lease_end in ipairs(members[1] and redis.call('ZMSCORE', live, unpack(members)) or {}) do
    -- That of a batch which waits for its time is later.
    local left_s = tonumber(lease_end or 0) - now
    if left_s > 0 and left_s <= tonumber(ARGV[2]) then driven = driven + 1 end
end
return {get('status'), exact(now), driven}
