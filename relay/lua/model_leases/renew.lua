#!lua flags=allow-oom
-- KEYS lease; ARGV worker lease_ms wanted_s
-- Renews the lease, or creates it if Redis has lost it. Returns 'held'; 'wanted': another worker
-- requested the model in the last wanted_s seconds; 'lost': another worker owns it.
local lease = KEYS[1]
local worker, lease_ms, wanted_s = unpack(ARGV)
local owner = redis.call('HGET', lease, 'owner')
if owner and owner ~= worker then return 'lost' end
redis.call('HSET', lease, 'owner', worker)
redis.call('PEXPIRE', lease, lease_ms)
local wanted = redis.call('HGET', lease, 'wanted')
if wanted and redis.call('TIME')[1] - wanted <= tonumber(wanted_s) then return 'wanted' end
return 'held'
