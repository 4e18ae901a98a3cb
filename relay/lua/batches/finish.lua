#!lua flags=allow-oom
-- KEYS batch rows parts live index sharing stored files sizes sums outbox, then the record of each file
-- ARGV token id status line_errors parts_name keep_s ttl_s notice, then of each file: field id name
--   json counted_bytes
-- Creates the records of the files and ends the batch; notice (JSON, '': none) is added to outbox,
-- which is a channel, too. Returns 1; 0: there are rows without an answer; false: the lease is lost.
-- include shared/driven.lua
-- include shared/file.lua
local stored, files, sizes, sums, outbox = unpack(KEYS, 7, 11)
local _, id, status, line_errors, parts_name, keep_s, ttl_s, notice = unpack(ARGV, 1, 8)
if status ~= 'failed'
        and redis.call('BITCOUNT', rows) < tonumber(get('total') or 0) then return 0 end
for i = 12, #KEYS do
    local first = 9 + (i - 12) * 5
    local field, file_id, name, json, counted_bytes = unpack(ARGV, first, first + 4)
    create_file({KEYS[i], files, stored, sizes, sums}, file_id, name, json, tonumber(ttl_s),
                tonumber(counted_bytes))
    redis.call('HSET', batch, field, file_id)
end
if line_errors ~= '' then redis.call('HSET', batch, 'errors', line_errors) end
redis.call('HSET', batch, 'status', status, status .. '_at', exact(now))
redis.call('HDEL', batch, 'driver', 'issued', 'last_part', 'gives_up', 'pending_completed',
           'pending_failed')
redis.call('EXPIRE', batch, keep_s)
redis.call('DEL', rows, parts)
redis.call('ZREM', live, id)
redis.call('SREM', sharing, id)
redis.call('ZADD', stored, exact(now), parts_name)
if notice ~= '' then
    redis.call('XADD', outbox, 'MAXLEN', '~', 1000000, '*', 'e', notice)
    redis.call('PUBLISH', outbox, id)
end
return 1
