-- Defines whole(text, least), the number that a record's field holds: nil if that is none, is no whole
-- one, is less than least, or is none that the fleet has counted to. Defines logged(log), the attempt
-- of the last event of a log; 0 without one.
local function whole(text, least)
    local number = tonumber(text)
    if number and number >= least and number < 1e9 and number % 1 == 0 then return number end
    return nil
end
local function logged(log)
    local last = redis.pcall('XREVRANGE', log, '1000000000', '-', 'COUNT', 1)[1]
    return last and tonumber(string.match(last[1], '^%d+')) or 0
end
