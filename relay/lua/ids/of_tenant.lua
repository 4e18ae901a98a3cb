#!lua flags=no-writes,allow-oom
-- KEYS index (jobs of all tenants by time); ARGV tenant least most offset count is_newest_first (1 or 0)
--   record_pattern
-- Keys beyond KEYS: the records of these jobs.
-- Looks at `count` jobs with scores from least to most, without the first `offset`. Returns how many
-- there are, the score of the last, then (id score) of those of the tenant.
-- include shared/key_pattern.lua
local tenant, least, most, offset, count, is_newest_first, record_pattern = unpack(ARGV)
local record_of = keys_like(record_pattern)
local rows
if is_newest_first == '1' then
    rows = redis.call('ZREVRANGEBYSCORE', KEYS[1], most, least, 'WITHSCORES', 'LIMIT', offset, count)
else
    rows = redis.call('ZRANGEBYSCORE', KEYS[1], least, most, 'WITHSCORES', 'LIMIT', offset, count)
end
local found = {#rows / 2, rows[#rows] or ''}
for i = 1, #rows, 2 do
    -- A key of another type is of no job.
    if redis.pcall('HGET', record_of(rows[i]), 'tenant') == tenant then
        found[#found + 1] = rows[i]
        found[#found + 1] = rows[i + 1]
    end
end
return found
