#!lua flags=no-writes,allow-oom
-- KEYS (record log)...
-- Returns (tenant bytes)...: what the jobs that are there take in memory, of each tenant.
-- include shared/memory.lua
local bytes, found = {}, {}
for i = 1, #KEYS, 2 do
    -- A key of another type is of no job.
    local tenant = redis.pcall('HGET', KEYS[i], 'tenant')
    if type(tenant) == 'string' then
        bytes[tenant] = (bytes[tenant] or 0) + size_of(KEYS[i], KEYS[i + 1])
    end
end
for tenant, count in pairs(bytes) do
    found[#found + 1] = tenant
    found[#found + 1] = count
end
return found
