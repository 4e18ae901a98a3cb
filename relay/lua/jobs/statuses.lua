#!lua flags=no-writes,allow-oom
-- KEYS record...
-- Returns the status of each job; '' if it does not exist.
local statuses = {}
for i, record in ipairs(KEYS) do statuses[i] = redis.call('HGET', record, 'status') or '' end
return statuses
