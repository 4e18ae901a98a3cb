#!lua flags=no-writes,allow-oom
-- KEYS (record log)...
-- Returns (tenant bytes ended)...: what the jobs that are there take in memory, of each tenant, and
-- how much of it those take that have ended, and that no batch needs.
-- include shared/ended.lua
-- include shared/memory.lua
local bytes, of_ended, found = {}, {}, {}
for i = 1, #KEYS, 2 do
    local fields = redis.pcall('HMGET', KEYS[i], 'tenant', 'status', 'needed')
    -- A key of another type is of no job.
    local tenant, status, needed = unpack(fields.err and {} or fields)
    if tenant then
        local size = size_of(KEYS[i], KEYS[i + 1])
        bytes[tenant] = (bytes[tenant] or 0) + size
        if ended[status] and not needed then of_ended[tenant] = (of_ended[tenant] or 0) + size end
    end
end
for tenant, count in pairs(bytes) do
    found[#found + 1] = tenant
    found[#found + 1] = count
    found[#found + 1] = of_ended[tenant] or 0
end
return found
