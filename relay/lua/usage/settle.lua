#!lua flags=allow-oom
-- KEYS spending usage reserved
-- ARGV mark_before mark day month usage_ttl_s spending_ttl_s most_rows rows
--   (field other counts)... (job tokens nano)...
-- Adds to a tenant's day what ended jobs have used, unless another mark than mark_before (the id of
-- the last settled entry of fleet:unsettled, '': none) is reached. A row with a new field is added to
-- other where the day has most_rows. counts are whole numbers with spaces between them. Of a job for
-- which something is reserved, its limits then count what it used. Returns 1; 0: another mark.
-- include shared/spending.lua
local spending, usage, reserved = unpack(KEYS)
local mark_before, mark, day, month, usage_ttl_s, spending_ttl_s, most_rows, rows = unpack(ARGV)
if (redis.call('HGET', spending, 'mark') or '') ~= mark_before then return 0 end
redis.call('HSET', spending, 'mark', mark)
redis.call('EXPIRE', spending, spending_ttl_s)
local function sum(kept, added)
    local total, at = {}, 0
    local numbers = {}
    for number in string.gmatch(kept or '', '%S+') do numbers[#numbers + 1] = number end
    for number in string.gmatch(added, '%S+') do
        at = at + 1
        total[at] = string.format('%.0f', number + (tonumber(numbers[at]) or 0))
    end
    return table.concat(total, ' ')
end
local last = 8 + rows * 3
for i = 9, last, 3 do
    local field, other, counts = unpack(ARGV, i, i + 2)
    local kept = redis.call('HGET', usage, field)
    if not kept and redis.call('HLEN', usage) >= tonumber(most_rows) then
        field, kept = other, redis.call('HGET', usage, other)
    end
    redis.call('HSET', usage, field, sum(kept, counts))
end
if rows ~= '0' then redis.call('EXPIRE', usage, usage_ttl_s) end
for i = last + 1, #ARGV, 3 do
    settle_job(spending, reserved, ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]),
               tonumber(day), tonumber(month))
end
return 1
