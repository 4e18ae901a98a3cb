#!lua flags=allow-oom
-- KEYS lease; ARGV worker wanted_s
-- Passes the lease, for wanted_s seconds, to the last worker that requested it in the wanted_s
-- seconds before, or deletes it. Returns 1; 0: the worker does not own the model.
local lease = KEYS[1]
local worker, wanted_s = unpack(ARGV)
local owner, wanted, by = unpack(redis.call('HMGET', lease, 'owner', 'wanted', 'by'))
if owner ~= worker then return 0 end
redis.call('DEL', lease)
if wanted and redis.call('TIME')[1] - wanted <= tonumber(wanted_s) then
    redis.call('HSET', lease, 'owner', by)
    redis.call('EXPIRE', lease, wanted_s)
end
return 1
