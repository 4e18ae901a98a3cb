#!lua flags=allow-oom
-- KEYS receipt; ARGV field number nonce
-- Adds to a count of a receipt, once for each nonce: one process counts, one call after the other.
-- Returns 1.
local receipt = KEYS[1]
local field, number, nonce = unpack(ARGV)
if redis.call('HGET', receipt, 'counted') == nonce then return 1 end
redis.call('HINCRBY', receipt, field, number)
redis.call('HSET', receipt, 'counted', nonce)
return 1
