#!lua flags=allow-oom
-- KEYS receipt; ARGV field number nonce
-- Adds to a count of a receipt, once for each nonce: one process counts, one call after the other.
-- Returns 1.
local receipt = KEYS[1]
local field, number, nonce = unpack(ARGV)
if redis.call('HGET', receipt, 'counted') == nonce then return 1 end
local before = redis.call('HGET', receipt, field)
-- What another program wrote there counts as nothing.
if before and not string.match(before, '^%d+$') then redis.call('HDEL', receipt, field) end
redis.call('HINCRBY', receipt, field, number)
redis.call('HSET', receipt, 'counted', nonce)
return 1
