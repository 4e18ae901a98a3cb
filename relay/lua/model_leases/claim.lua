#!lua flags=allow-oom
-- KEYS lease; ARGV worker lease_ms
-- Acquires the lease. Returns 1; 0: another worker owns the model, and the request is recorded for
-- it.
local lease = KEYS[1]
local worker, lease_ms = unpack(ARGV)
local owner = redis.call('HGET', lease, 'owner')
if owner and owner ~= worker then
    redis.call('HSET', lease, 'wanted', redis.call('TIME')[1], 'by', worker)
    return 0
end
redis.call('DEL', lease)
redis.call('HSET', lease, 'owner', worker)
redis.call('PEXPIRE', lease, lease_ms)
return 1
