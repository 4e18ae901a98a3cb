#!lua flags=allow-oom
-- KEYS recent tenants_recent dead (record log)...; ARGV id...
-- Deletes the records and logs of the jobs that have ended. Returns their number.
-- include shared/ended.lua
local deleted = 0
for i, id in ipairs(ARGV) do
    local record, log = KEYS[2 + i * 2], KEYS[3 + i * 2]
    local status = redis.call('HGET', record, 'status')
    if not status or ended[status] then
        redis.call('UNLINK', record, log)
        for index = 1, 3 do redis.call('ZREM', KEYS[index], id) end
        deleted = deleted + 1
    end
end
return deleted
