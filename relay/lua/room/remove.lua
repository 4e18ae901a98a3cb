#!lua flags=allow-oom
-- KEYS recent dead (record log)...
-- ARGV ended_before idle_s tenants_recent_pattern victims (tenant bytes)... id...
-- Keys beyond KEYS: the lists of the victims' jobs.
-- Deletes jobs of that many victims, in this order, until so many bytes of each are gone: jobs that
-- ended before then (unix seconds), that no batch needs, and whose log nobody has
-- read for idle_s seconds. Returns (tenant jobs bytes)... of what was deleted.
-- include shared/ended.lua
-- include shared/key_pattern.lua
-- include shared/memory.lua
local recent, dead = unpack(KEYS, 1, 2)
local ended_before, idle_s, victims = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[4])
local tenants_recent, left, bytes = keys_like(ARGV[3]), {}, {}
for i = 5, 3 + 2 * victims, 2 do left[ARGV[i]] = tonumber(ARGV[i + 1]) end
local function is_read(log)
    -- A policy of LFU keeps no times; then nobody can tell.
    local idle = redis.pcall('OBJECT', 'IDLETIME', log)
    return type(idle) == 'number' and idle < idle_s
end
local keys, ids, lists = {}, {}, {}
for i = 3, #KEYS, 2 do
    local record, log, id = KEYS[i], KEYS[i + 1], ARGV[4 + 2 * victims + (i - 1) / 2]
    local fields = redis.pcall('HMGET', record, 'tenant', 'status', 'ended_at', 'needed')
    local tenant, status, ended_at, needed = unpack(fields.err and {} or fields)
    if tenant and (left[tenant] or 0) > 0 and ended[status] and not needed
            and (tonumber(ended_at) or 0) < ended_before and not is_read(log) then
        local freed = size_of(record, log)
        keys[#keys + 1], keys[#keys + 2], ids[#ids + 1] = record, log, id
        local list = lists[tenant] or {}
        lists[tenant], list[#list + 1] = list, id
        left[tenant] = left[tenant] - freed
        bytes[tenant] = (bytes[tenant] or 0) + freed
    end
end
local found = {}
for tenant, list in pairs(lists) do
    -- What another program has written in a list's place keeps no job.
    redis.pcall('ZREM', tenants_recent(tenant), unpack(list))
    found[#found + 1] = tenant
    found[#found + 1] = #list
    found[#found + 1] = bytes[tenant]
end
if #ids > 0 then
    redis.call('ZREM', recent, unpack(ids))
    redis.pcall('ZREM', dead, unpack(ids))
    redis.call('UNLINK', unpack(keys))
end
return found
