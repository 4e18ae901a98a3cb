#!lua
-- KEYS as shared/begin.lua, then key keys
-- ARGV fingerprint queue ttl_s renew_s record_pattern, then as shared/begin.lua
-- Keys beyond KEYS: the record of the key's job.
-- Binds an Idempotency-Key to a job and writes its record. Returns {job, queue, state}, and
-- created_at for a new job: states as shared/idempotency.lua.
-- include shared/begin.lua
-- include shared/idempotency.lua
local key, keys = unpack(KEYS, 9)
local fingerprint, queue, ttl_s, renew_s, record_pattern = unpack(ARGV, 1, 5)
local held = hold(key, keys, fingerprint, ARGV[6], queue, ttl_s, renew_s, record_pattern)
if held[3] == 1 then held[4] = begin(unpack(ARGV, 6))[2] end
return held
