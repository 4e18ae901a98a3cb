#!lua flags=allow-oom
-- KEYS key keys; ARGV fingerprint job queue ('' to read only) ttl_s renew_s record_pattern
-- Keys beyond KEYS: the record of the key's job.
-- Binds an Idempotency-Key to a job. Returns what hold of shared/idempotency.lua returns.
-- include shared/idempotency.lua
return hold(KEYS[1], KEYS[2], unpack(ARGV))
