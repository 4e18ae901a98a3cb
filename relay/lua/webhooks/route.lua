#!lua flags=allow-oom
-- KEYS outbox due waiting, then of each receiver: queue deliveries in_lane
-- ARGV entry tenant most most_of_tenant most_kept ttl_s, then of each receiver: lane name delivery
--   (JSON) refusal ('': none)
-- Takes an entry out of the outbox and gives it to its receivers. What has no room, or is refused, is
-- listed as dropped. Returns how many were dropped; false: another process has taken the entry.
-- include shared/webhook.lua
local outbox, due, waiting = unpack(KEYS, 1, 3)
local entry, tenant, most, most_of_tenant, most_kept, ttl_s = unpack(ARGV, 1, 6)
if redis.call('XDEL', outbox, entry) == 0 then return false end
local dropped = 0
for i = 1, (#KEYS - 3) / 3 do
    local queue, deliveries, in_lane = unpack(KEYS, 1 + 3 * i, 3 + 3 * i)
    local lane, name, delivery, refusal = unpack(ARGV, 3 + 4 * i, 6 + 4 * i)
    local why = refusal
    if why == '' then why = obstacle(queue, waiting, tenant, most, most_of_tenant) end
    if why == '' then
        push(queue, in_lane, due, waiting, lane, name, tenant, delivery)
    else
        keep(deliveries, delivery, 'dropped', 0, '', why, most_kept, ttl_s)
        dropped = dropped + 1
    end
end
return dropped
