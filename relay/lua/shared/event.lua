-- Defines add_event(...): appends an event to a log and publishes it. fields is the event's JSON
-- without its opening brace; id and time are inserted before it.
-- include shared/time.lua
local function add_event(log, channel, attempt, seq, type, fields)
    local id = attempt .. '-' .. seq
    local body = '{"id":"' .. id .. '","at":' .. string.format('%.3f', now) .. ',' .. fields
    local frame = id .. ' ' .. type .. ' ' .. body
    redis.call('XADD', log, id, 'f', frame)
    redis.call('PUBLISH', channel, frame)
end
