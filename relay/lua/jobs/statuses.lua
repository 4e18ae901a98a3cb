#!lua flags=no-writes,allow-oom
-- KEYS record...
-- Returns the status of each job; '' if it does not exist, or is another type of key.
local statuses = {}
for i, record in ipairs(KEYS) do
    local status = redis.pcall('HGET', record, 'status')
    statuses[i] = type(status) == 'string' and status or ''
end
return statuses
