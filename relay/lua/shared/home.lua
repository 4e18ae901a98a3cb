-- Defines home_of(conversation): the id of the address where it ran last, with the worker that
-- serves it and that worker's lease_s; nil for each that is not known or does not work now.
-- homes and addresses are keys.
-- include shared/time.lua
local function home_of(homes, addresses, conversation)
    local home = redis.call('HGET', homes, conversation)
    local entry = home and redis.call('HGET', addresses, home)
    local expires_at, lease_s, worker = string.match(entry or '', '^(%S+) (%S+) (.+)$')
    if (tonumber(expires_at or 0) or 0) < now then return home or nil, nil, nil end
    return home, worker, lease_s
end
