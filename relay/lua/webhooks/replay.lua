#!lua flags=allow-oom
-- KEYS queue state in_lane due waiting
-- ARGV call lane name tenant most most_of_tenant ttl_s (delivery)...
-- Adds deliveries to the queue of a receiver again, once for a call (random text). Returns {how many,
-- how many had no room}.
-- include shared/webhook.lua
local queue, state, in_lane, due, waiting = unpack(KEYS)
local call, lane, name, tenant, most, most_of_tenant, ttl_s = unpack(ARGV, 1, 7)
local last, pushed = unpack(redis.call('HMGET', state, 'call', 'pushed'))
if last ~= call then
    pushed = 0
    for i = 8, #ARGV do
        if obstacle(queue, in_lane, waiting, tenant, most, most_of_tenant) ~= '' then break end
        push(queue, in_lane, due, waiting, lane, name, tenant, ARGV[i])
        pushed = pushed + 1
    end
    redis.call('HSET', state, 'call', call, 'pushed', pushed)
    redis.call('EXPIRE', state, ttl_s)
end
return {tonumber(pushed), #ARGV - 7 - pushed}
