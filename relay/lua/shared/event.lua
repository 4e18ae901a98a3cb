-- Defines add_event(...): appends an event to a log and publishes it. fields is the event's JSON
-- without its opening brace; id and time are inserted before it.
-- Another program's entry, whose id is the time in milliseconds ('*'), would have Redis refuse every
-- event from then on: a log that ends with one is written anew without it.
-- include shared/time.lua
local function add_event(log, channel, attempt, seq, type, fields)
    local id = attempt .. '-' .. seq
    local body = '{"id":"' .. id .. '","at":' .. string.format('%.3f', now) .. ',' .. fields
    local frame = id .. ' ' .. type .. ' ' .. body
    local added = redis.pcall('XADD', log, id, 'f', frame)
    if added.err then
        local last = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
        if last and tonumber(string.match(last[1], '^%d+')) > 1e9 then
            local own = redis.call('XRANGE', log, '-', '1000000000')
            redis.call('DEL', log)
            for _, entry in ipairs(own) do
                redis.call('XADD', log, entry[1], unpack(entry[2]))
            end
        end
        redis.call('XADD', log, id, 'f', frame)
    end
    redis.call('PUBLISH', channel, frame)
end
