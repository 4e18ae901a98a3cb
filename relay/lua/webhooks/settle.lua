#!lua flags=allow-oom
-- KEYS queue state deliveries in_lane due waiting
-- ARGV lane name tenant entry outcome (retry, delivered or failed) tries failures lost status error
--   due_at most_kept ttl_s state_ttl_s
-- Notes how a try of the first delivery of a receiver went; unless it is tried again, the delivery
-- leaves the queue. failures are tries, and lost deliveries, that failed since the last success.
-- Returns {1; 0: another delivery is the first one, or none waits; the error of a list of deliveries
-- that is damaged ('': it is not)}.
-- include shared/webhook.lua
local queue, state, deliveries, in_lane, due, waiting = unpack(KEYS)
local lane, name, tenant, entry, outcome, tries, failures, lost, status, error, due_at, most_kept,
    ttl_s, state_ttl_s = unpack(ARGV)
local first = redis.call('XRANGE', queue, '-', '+', 'COUNT', 1)[1]
if not first then schedule(due, in_lane, lane, name, '') end
if not first or first[1] ~= entry then return {0, ''} end
if outcome == 'delivered' then
    redis.call('HDEL', state, 'entry', 'tries', 'failures', 'lost', 'error')
else
    redis.call('HSET', state, 'entry', entry, 'tries', tries, 'failures', failures, 'lost', lost,
               'error', error)
    redis.call('EXPIRE', state, state_ttl_s)
end
local damage = ''
if outcome ~= 'retry' then
    damage = keep(deliveries, first[2][2], outcome, tries, status, error, most_kept, ttl_s)
    redis.call('XDEL', queue, entry)
    leave(queue, waiting, tenant, 1)
    if redis.call('EXISTS', queue) == 0 then due_at = '' end
end
schedule(due, in_lane, lane, name, due_at)
return {1, damage}
