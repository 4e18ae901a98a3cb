#!lua flags=allow-oom
-- KEYS queue state deliveries in_lane due waiting; ARGV lane name tenant reason most_kept ttl_s
-- Empties the queue of a receiver: its deliveries are listed as dropped. Returns how many.
-- include shared/webhook.lua
local queue, state, deliveries, in_lane, due, waiting = unpack(KEYS)
local lane, name, tenant, reason, most_kept, ttl_s = unpack(ARGV)
local count = redis.call('XLEN', queue)
local newest = redis.call('XREVRANGE', queue, '+', '-', 'COUNT', most_kept)
for i = #newest, 1, -1 do
    keep(deliveries, newest[i][2][2], 'dropped', 0, '', reason, most_kept, ttl_s)
end
redis.call('DEL', queue, state)
leave(queue, waiting, tenant, count)
schedule(due, in_lane, lane, name, '')
return count
