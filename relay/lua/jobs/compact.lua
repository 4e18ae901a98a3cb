#!lua flags=allow-oom
-- KEYS record log; ARGV ended_at length moved dropped (id field value)...
-- Replaces the log of an ended job by these entries, and removes fields from its record: moved,
-- which are in the entries, and dropped (names, with spaces between them). Returns 1; 0: nothing was
-- done, because the job has not ended then, its log has not this length, or it is compacted.
-- include shared/ended.lua
local record, log = unpack(KEYS)
local then_at, length, moved, dropped = unpack(ARGV, 1, 4)
local status, ended_at, compacted =
    unpack(redis.call('HMGET', record, 'status', 'ended_at', 'compacted'))
if not ended[status] or ended_at ~= then_at or compacted
        or redis.call('XLEN', log) ~= tonumber(length) then
    return 0
end
local record_ends, log_ends = redis.call('PEXPIRETIME', record), redis.call('PEXPIRETIME', log)
if record_ends < 0 or log_ends < 0 then return 0 end
redis.call('DEL', log)
for i = 5, #ARGV, 3 do redis.call('XADD', log, ARGV[i], ARGV[i + 1], ARGV[i + 2]) end
redis.call('PEXPIREAT', log, log_ends)
-- XADD reserves 4 KiB for entries to come. A stream that is restored has just its size; a user
-- without the right to RESTORE keeps the larger one.
redis.pcall('RESTORE', log, log_ends, redis.call('DUMP', log), 'REPLACE', 'ABSTTL')
-- A hash that once held a long value is a table until it is written anew.
local leaves = {}
for name in string.gmatch(moved .. ' ' .. dropped, '%S+') do leaves[name] = true end
local fields, kept = redis.call('HGETALL', record), {'compacted', moved}
for i = 1, #fields, 2 do
    if not leaves[fields[i]] then
        kept[#kept + 1] = fields[i]
        kept[#kept + 1] = fields[i + 1]
    end
end
redis.call('DEL', record)
redis.call('HSET', record, unpack(kept))
redis.call('PEXPIREAT', record, record_ends)
return 1
