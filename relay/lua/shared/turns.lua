-- Defines live_turns(turns, record_of, most): the first jobs of a conversation that have not ended,
-- at most so many; those that have ended before them leave the list turns. record_of(id) is the key
-- of a job's record.
-- include shared/ended.lua
local function live_turns(turns, record_of, most)
    local live = {}
    for _, id in ipairs(redis.call('LRANGE', turns, 0, -1)) do
        local status = redis.call('HGET', record_of(id), 'status')
        if not status or ended[status] then redis.call('LREM', turns, 1, id)
        else
            live[#live + 1] = id
            if #live >= most then return live end
        end
    end
    return live
end
