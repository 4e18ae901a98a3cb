#!lua flags=allow-oom
-- KEYS outbox due waiting, then of each receiver: queue deliveries in_lane
-- ARGV entry tenant most most_of_tenant most_kept ttl_s, then of each receiver: lane name delivery
--   (JSON) refusal ('': none)
-- Takes an entry out of the outbox and gives it to its receivers. What has no room, is refused, or
-- finds its queue damaged is listed as dropped. Returns {how many were dropped, the first error of a
-- damaged key ('': none)}; false: another process has taken the entry.
-- include shared/webhook.lua
local outbox, due, waiting = unpack(KEYS, 1, 3)
local entry, tenant, most, most_of_tenant, most_kept, ttl_s = unpack(ARGV, 1, 6)
if redis.call('XDEL', outbox, entry) == 0 then return false end
local function give(i)
    local queue, _, in_lane = unpack(KEYS, 1 + 3 * i, 3 + 3 * i)
    local lane, name, delivery, refusal = unpack(ARGV, 3 + 4 * i, 6 + 4 * i)
    local why = refusal
    if why == '' then why = obstacle(queue, in_lane, waiting, tenant, most, most_of_tenant) end
    if why == '' then push(queue, in_lane, due, waiting, lane, name, tenant, delivery) end
    return why
end
local dropped, damage = 0, ''
for i = 1, (#KEYS - 3) / 3 do
    -- What is damaged of one receiver takes nothing from the others: the entry is gone already.
    local is_given, why = pcall(give, i)
    if not is_given then
        if damage == '' then damage = type(why) == 'table' and why.err or tostring(why) end
        why = 'a key of its queue is damaged: the log of the shim names it'
    end
    if why ~= '' then
        local lost = keep(KEYS[2 + 3 * i], ARGV[5 + 4 * i], 'dropped', 0, '', why, most_kept, ttl_s)
        if damage == '' then damage = lost end
        dropped = dropped + 1
    end
end
return {dropped, damage}
