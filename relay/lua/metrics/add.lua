#!lua flags=allow-oom
-- KEYS totals sequence; ARGV number ttl_s sequence_ttl_s most_names now
--      (set name field other amount)...
-- Adds amounts to the fleet's totals, unless the process has sent this number before. name is one
-- of a set ('model', 'tenant') that has most_names members: the amount of a later name is added to
-- other in place of field. set is '' where a field has no such name. Returns 1 if it was added.
local totals, sequence = unpack(KEYS)
local number, ttl_s, sequence_ttl_s, most_names = unpack(ARGV, 1, 4)
if (tonumber(redis.call('GET', sequence) or 0) or 0) >= tonumber(number) then return 0 end
redis.call('HSETNX', totals, 'since', ARGV[5])
local function is_named(set, name)
    if set == '' then return true end
    local member, count = 'name ' .. set .. ' ' .. name, 'names ' .. set
    if redis.call('HEXISTS', totals, member) == 1 then return true end
    if (tonumber(redis.call('HGET', totals, count) or 0) or 0) >= tonumber(most_names) then
        return false
    end
    redis.call('HSET', totals, member, 1)
    local names = redis.pcall('HINCRBY', totals, count, 1)
    if type(names) == 'table' then redis.call('HSET', totals, count, 1) end
    return true
end
for i = 6, #ARGV, 5 do
    local set, name, field, other, amount = unpack(ARGV, i, i + 4)
    local total = is_named(set, name) and field or other
    -- What is no number was not written by the fleet: it counts anew.
    local sum = redis.pcall('HINCRBYFLOAT', totals, total, amount)
    if type(sum) == 'table' then redis.call('HSET', totals, total, amount) end
end
redis.call('EXPIRE', totals, ttl_s)
redis.call('SET', sequence, number, 'EX', sequence_ttl_s)
return 1
