-- Defines release(id, expected, drained): removes a job that has ended from its queue and counts it
-- in drained. Returns its holder, '<attempt> <worker>'; false: it had none, or another one than
-- expected ('': any).
-- include shared/queue.lua
local function release(id, expected, drained)
    local holder = redis.call('HGET', holders, id)
    if expected ~= '' and holder ~= expected then return false end
    -- A job that this holder has is in no list of the backlog.
    if not holder or expected == '' and redis.call('ZSCORE', backlog, id) then
        leave(id, known(id))
    end
    redis.call('HDEL', facts, id)
    redis.call('ZREM', leases, id)
    redis.call('HDEL', holders, id)
    if holder then
        local count = redis.pcall('INCR', drained)
        if count == 1 then redis.call('EXPIRE', drained, 900)
        elseif type(count) ~= 'number' then redis.call('SET', drained, 1, 'EX', 900) end
    end
    return holder
end
