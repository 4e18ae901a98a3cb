#!lua flags=allow-oom
-- KEYS spending reserved
-- ARGV job day month day_ends_s month_ends_s ttl_s tokens nano, then the limits: tokens_minute
--   tokens_day nano_day nano_month ('': none)
-- Reserves for a job what it may use, if that fits the tenant's limits; once, if it is repeated.
-- day_ends_s and month_ends_s are seconds from now. Returns {0}, or the first limit that is reached:
-- {its number from 1, used, limit, seconds until there is room, -1 if there will never be}.
-- include shared/spending.lua
local spending, reserved = unpack(KEYS)
local job, day, month, day_ends_s, month_ends_s, ttl_s, tokens, nano = unpack(ARGV, 1, 8)
day, month, tokens, nano = tonumber(day), tonumber(month), tonumber(tokens), tonumber(nano)
if redis.call('HEXISTS', reserved, job) == 1 then return {0} end
local function text(number) return string.format('%.0f', number) end
local function refusal(number, had, adds, limit, wait_s)
    if adds > limit then wait_s = -1 end
    return {number, text(had), text(limit), string.format('%.3f', wait_s)}
end
local minute = tonumber(ARGV[9])
if minute then
    local sum, recent = 0, {}
    for at = slice - window, slice do
        local of, had = used(spending, 'm', at, slices)
        if of == at then
            sum = sum + had
            recent[#recent + 1] = {at, had}
        end
    end
    if sum + tokens > minute then
        local left, wait_s = sum, 0
        for _, each in ipairs(recent) do
            if left + tokens > minute then
                left = left - each[2]
                wait_s = (each[1] + window + 1) * slice_s - now
            end
        end
        return refusal(1, sum, tokens, minute, wait_s)
    end
end
local function of_period(name, number)
    local of, had_tokens, had_nano = used(spending, name, number, 2)
    if of ~= number then return 0, 0 end
    return had_tokens, had_nano
end
local day_tokens, day_nano = of_period('d', day)
local _, month_nano = of_period('n', month)
for number, each in ipairs({{day_tokens, tokens, day_ends_s}, {day_nano, nano, day_ends_s},
                            {month_nano, nano, month_ends_s}}) do
    local had, adds, wait_s = unpack(each)
    local limit = tonumber(ARGV[9 + number])
    if limit and had + adds > limit then return refusal(number + 1, had, adds, limit, wait_s) end
end
count(spending, slice, day, month, tokens, nano)
redis.call('HSET', reserved, job, string.format('%d %d %d %.0f %.0f', slice, day, month, tokens,
                                                nano))
redis.call('EXPIRE', spending, ttl_s)
redis.call('EXPIRE', reserved, ttl_s)
return {0}
