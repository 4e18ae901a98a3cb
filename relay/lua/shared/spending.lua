-- Defines what a tenant's limits count, fields of the hash spending: m0 to m15, by slice of five
-- seconds; d0 and d1, by day; n0 and n1, by month. A field holds '<number> <tokens> <billionths of
-- the currency>' and is reused for a later slice, day or month. The last minute is the present slice
-- and window before it. What is reserved for jobs that may not start before a later slice is apart, in
-- M<slice>, D<day> and N<month> ('<tokens> <nano>'), until they are settled: docs/adr/0052.
-- Defines count(...), which adds what was used or reserved now; plan(...), which does for later;
-- settle_job(...), which replaces what is reserved for a job by what it used.
-- include shared/time.lua
local slice_s, slices, window = 5, 16, 12
local slice = math.floor(now / slice_s)
local function add(spending, name, number, size, tokens, nano)
    local field = name .. number % size
    local text = redis.call('HGET', spending, field)
    local of, had_tokens, had_nano = string.match(text or '-1 0 0', '^(%S+) (%S+) (%S+)$')
    of, had_tokens, had_nano = tonumber(of or -1) or -1, tonumber(had_tokens), tonumber(had_nano)
    if not (had_tokens and had_nano) then of, had_tokens, had_nano = -1, 0, 0 end  -- damaged
    if of > number then return end
    if of < number then had_tokens, had_nano = 0, 0 end
    redis.call('HSET', spending, field, string.format('%d %.0f %.0f', number,
        math.max(0, had_tokens + tokens), math.max(0, had_nano + nano)))
end
local function count(spending, at, day, month, tokens, nano)
    add(spending, 'm', at, slices, tokens, nano)
    add(spending, 'd', day, 2, tokens, nano)
    add(spending, 'n', month, 2, tokens, nano)
end
local function plan(spending, at, day, month, tokens, nano)
    for _, field in ipairs({'M' .. at, 'D' .. day, 'N' .. month}) do
        local had_tokens, had_nano =
            string.match(redis.call('HGET', spending, field) or '0 0', '^(%S+) (%S+)$')
        local sum_tokens = math.max(0, (tonumber(had_tokens or 0) or 0) + tokens)
        local sum_nano = math.max(0, (tonumber(had_nano or 0) or 0) + nano)
        if sum_tokens == 0 and sum_nano == 0 then redis.call('HDEL', spending, field)
        else redis.call('HSET', spending, field, string.format('%.0f %.0f', sum_tokens, sum_nano)) end
    end
end
local function settle_job(spending, reserved, job, tokens, nano, day, month)
    local held = redis.call('HGET', reserved, job)
    if not held then return count(spending, slice, day, month, tokens, nano) end
    redis.call('HDEL', reserved, job)
    local at, its_day, its_month, its_tokens, its_nano =
        string.match(held, '^(%+?%d+) (%d+) (%d+) (%d+) (%d+)$')
    if not at then  -- damaged: what was reserved is not known
        if day then count(spending, slice, day, month, tokens, nano) end
        return
    end
    local later = string.match(at, '^%+(%d+)$')
    if not later then
        return count(spending, tonumber(at), tonumber(its_day), tonumber(its_month),
                     tokens - its_tokens, nano - its_nano)
    end
    plan(spending, later, its_day, its_month, -its_tokens, -its_nano)
    if tokens > 0 or nano > 0 then
        count(spending, tonumber(later), tonumber(its_day), tonumber(its_month), tokens, nano)
    end
end
