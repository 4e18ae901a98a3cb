-- Defines resize(sizes, sums, name, tenant, size_bytes), which counts an object of the storage with
-- this size, or no longer (0); bytes_of(sums, tenant), the sums of a tenant and of all; and
-- number_of(sums, tenant), how many objects a tenant has.
local function add(sums, field, by)
    if by == 0 then return end
    -- What is no number was not written by the fleet: it counts anew.
    local sum = redis.pcall('HINCRBY', sums, field, string.format('%d', by))
    if type(sum) == 'table' then
        redis.call('HSET', sums, field, string.format('%d', by))
        sum = by
    end
    if sum <= 0 then redis.call('HDEL', sums, field) end
end
local function resize(sizes, sums, name, tenant, size_bytes)
    local before = redis.call('HGET', sizes, name)
    local old_bytes, owner = string.match(before or '', '^(%d+) (.*)$')
    if not owner then old_bytes, owner = 0, tenant end
    if size_bytes > 0 then
        redis.call('HSET', sizes, name, string.format('%d', size_bytes) .. ' ' .. owner)
    else redis.call('HDEL', sizes, name) end
    local by = size_bytes - tonumber(old_bytes)
    add(sums, '=' .. owner, by)
    add(sums, 'all', by)
    if not before and size_bytes > 0 then add(sums, '#' .. owner, 1)
    elseif before and size_bytes <= 0 then add(sums, '#' .. owner, -1) end
    return by
end
local function number_of(sums, tenant)
    local number = tonumber(redis.call('HGET', sums, '#' .. tenant) or 0) or 0
    return number < 1e9 and number or 0  -- more was not counted by the fleet
end
local function bytes_of(sums, tenant)
    local own, all = unpack(redis.call('HMGET', sums, '=' .. tenant, 'all'))
    return tonumber(own or 0) or 0, tonumber(all or 0) or 0
end
