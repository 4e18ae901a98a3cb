-- Names the first KEYS and ARGV of the scripts that start a job: KEYS record log; ARGV channel
-- attempt worker nonce started. Defines start(), which appends started for a claimed job and
-- returns {length of the log, record (HGETALL)}, also if it is repeated after a lost reply; false:
-- the claim is no longer valid.
-- include shared/event.lua
-- include shared/attempt.lua
local record, log = unpack(KEYS)
local channel, claimed, worker, nonce, started = unpack(ARGV)
local function start()
    local status, attempt, holder, tries =
        unpack(redis.call('HMGET', record, 'status', 'attempt', 'nonce', 'tries'))
    if attempt ~= claimed then return false end
    if not (status == 'running' and holder == nonce) then
        if status ~= 'queued' then return false end
        redis.call('HSET', record, 'status', 'running', 'started_at', exact(now),
                   'worker', worker, 'nonce', nonce, 'tries', (whole(tries, 0) or 0) + 1)
        add_event(log, channel, attempt, 1, 'started', started)
    end
    return {redis.call('XLEN', log), redis.call('HGETALL', record)}
end
