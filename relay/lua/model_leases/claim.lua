-- KEYS lease; ARGV worker lease_ms
-- Returns 1 if the worker owns the model; 0: another does, and the request is noted for it.
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
