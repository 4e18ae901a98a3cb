-- Defines live_turns(turns, record_of, most): the first jobs of a conversation that have not ended,
-- at most so many; those that have ended before them leave the list turns. record_of(id) is the key
-- of a job's record.
-- include shared/ended.lua
local function live_turns(turns, record_of, most)
    local live = {}
    local ids = redis.pcall('LRANGE', turns, 0, -1)
    if ids.err then return live end  -- damaged: the jobs of other conversations are claimed
    for _, id in ipairs(ids) do
        local status = redis.pcall('HGET', record_of(id), 'status')
        if type(status) ~= 'string' or ended[status] then redis.call('LREM', turns, 1, id)
        else
            live[#live + 1] = id
            if #live >= most then return live end
        end
    end
    return live
end
