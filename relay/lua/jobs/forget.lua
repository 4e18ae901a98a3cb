#!lua flags=allow-oom
-- KEYS recent tenants_recent dead (record log)...; ARGV id...
-- Deletes the records and logs of the jobs that have ended. Returns their number. A log from which
-- the ledger may have to be settled (docs/adr/0052) is kept for a minute more.
-- include shared/ended.lua
local deleted = 0
for i, id in ipairs(ARGV) do
    local record, log = KEYS[2 + i * 2], KEYS[3 + i * 2]
    local status, attempt = unpack(redis.call('HMGET', record, 'status', 'attempt'))
    if not status or ended[status] then
        redis.call('UNLINK', record)
        if status == 'done' and attempt == '1' then redis.call('UNLINK', log)
        else redis.call('EXPIRE', log, 60) end
        for index = 1, 3 do redis.call('ZREM', KEYS[index], id) end
        deleted = deleted + 1
    end
end
return deleted
