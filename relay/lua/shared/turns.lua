-- Defines live_turns(turns, record_of, most): the first jobs of a conversation that have not ended,
-- at most so many; those before them that have ended leave the list turns. Defines prune(turns,
-- record_of): all that have ended leave it. record_of(id) is the key of a job's record. A list is
-- read in pieces, because one of fifty thousand messages is read at each claim for its first alone.
-- include shared/ended.lua
local piece = 64
local function has_ended(key)
    local status = redis.pcall('HGET', key, 'status')
    return type(status) ~= 'string' or ended[status]
end
local function live_turns(turns, record_of, most)
    local live, read, gone = {}, 0, 0
    while #live < most do
        local ids = redis.pcall('LRANGE', turns, read, read + piece - 1)
        if ids.err or #ids == 0 then break end  -- damaged: other conversations are claimed
        for _, id in ipairs(ids) do
            if #live == most then break end
            if not has_ended(record_of(id)) then live[#live + 1] = id
            elseif #live == 0 then gone = gone + 1 end
        end
        read = read + #ids
    end
    if gone > 0 then redis.call('LTRIM', turns, gone, -1) end
    return live
end
local function prune(turns, record_of)
    local count, live = redis.call('LLEN', turns), {}
    for from = 0, count - 1, piece do
        for _, id in ipairs(redis.call('LRANGE', turns, from, math.min(from + piece, count) - 1)) do
            if not has_ended(record_of(id)) then live[#live + 1] = id end
        end
    end
    if #live == count then return end
    for from = 1, #live, piece do
        redis.call('RPUSH', turns, unpack(live, from, math.min(from + piece - 1, #live)))
    end
    redis.call('LTRIM', turns, count, -1)
end
