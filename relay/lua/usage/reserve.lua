#!lua flags=allow-oom
-- KEYS spending reserved
-- ARGV job day month day_ends_s month_ends_s ttl_s tokens nano due (unix seconds before which the job
--   may not start; 0: none), then the limits: tokens_minute tokens_day nano_day nano_month ('': none)
-- Reserves for a job what it may use, if that fits the tenant's limits; once, if it is repeated. day
-- and month are those in which it may start. day_ends_s and month_ends_s are seconds from now. Any 60
-- seconds count, those after it may start as well, where something may be reserved for later.
-- Returns {0}, or the first limit that is reached:
-- {its number from 1, used, limit, seconds until there is room, -1 if there will never be}. Of a
-- minute no more than the next three are looked at.
-- include shared/spending.lua
local spending, reserved = unpack(KEYS)
local job, day, month, day_ends_s, month_ends_s, ttl_s, tokens, nano, due = unpack(ARGV, 1, 9)
day, month, tokens, nano = tonumber(day), tonumber(month), tonumber(tokens), tonumber(nano)
if redis.call('HEXISTS', reserved, job) == 1 then return {0} end
local at = math.max(slice, math.floor(due / slice_s))
local function text(number) return string.format('%.0f', number) end
local function refusal(number, had, adds, limit, wait_s)
    if adds > limit then wait_s = -1 end
    return {number, text(had), text(limit), string.format('%.3f', wait_s)}
end
-- Returns the tokens and nano of a slice, day or month, used and reserved.
local function amounts(counted, planned, number)
    local of, had_tokens, had_nano = string.match(counted or '-1 0 0', '^(%S+) (%S+) (%S+)$')
    if tonumber(of or -1) ~= number then had_tokens, had_nano = 0, 0 end
    local later_tokens, later_nano = string.match(planned or '0 0', '^(%S+) (%S+)$')
    local function number_of(each) return tonumber(each or 0) or 0 end
    return number_of(had_tokens) + number_of(later_tokens), number_of(had_nano) + number_of(later_nano)
end
local minute = tonumber(ARGV[10])
if minute then
    local fields, tokens_of = {}, {}
    for each = at - window, at + window do
        fields[#fields + 1], fields[#fields + 2] = 'm' .. each % slices, 'M' .. each
    end
    local found = redis.call('HMGET', spending, unpack(fields))
    for i = 1, #found, 2 do
        local each = at - window + (i - 1) / 2
        tokens_of[each] = amounts(found[i], found[i + 1], each)
    end
    -- Returns the most tokens of any 60 seconds that have this slice in them.
    local function most(of)
        local sum = 0
        for each = of - window, of do sum = sum + (tokens_of[each] or 0) end
        local found_most = sum
        for each = of + 1, of + window do
            sum = sum + (tokens_of[each] or 0) - (tokens_of[each - window - 1] or 0)
            found_most = math.max(found_most, sum)
        end
        return found_most
    end
    local had = most(at)
    if had + tokens > minute then
        for each = at + window + 1, at + 4 * window do
            tokens_of[each] = amounts(nil, redis.call('HGET', spending, 'M' .. each), each)
        end
        local free_at = at + 1
        while free_at <= at + 3 * window and most(free_at) + tokens > minute do
            free_at = free_at + 1
        end
        return refusal(1, had, tokens, minute, free_at * slice_s - now)
    end
end
local of_periods = redis.call('HMGET', spending, 'd' .. day % 2, 'D' .. day, 'n' .. month % 2,
                              'N' .. month)
local day_tokens, day_nano = amounts(of_periods[1], of_periods[2], day)
local _, month_nano = amounts(of_periods[3], of_periods[4], month)
for number, each in ipairs({{day_tokens, tokens, day_ends_s}, {day_nano, nano, day_ends_s},
                            {month_nano, nano, month_ends_s}}) do
    local had, adds, wait_s = unpack(each)
    local limit = tonumber(ARGV[10 + number])
    if limit and had + adds > limit then return refusal(number + 1, had, adds, limit, wait_s) end
end
local is_later = at > slice
if is_later then plan(spending, at, day, month, tokens, nano)
else count(spending, at, day, month, tokens, nano) end
redis.call('HSET', reserved, job, string.format('%s%d %d %d %.0f %.0f', is_later and '+' or '', at,
                                                day, month, tokens, nano))
redis.call('EXPIRE', spending, ttl_s)
redis.call('EXPIRE', reserved, ttl_s)
return {0}
