#!lua flags=allow-oom
-- KEYS live deadlines followed unsettled parents outbox (log record audience)...
-- ARGV ttl_s grace_s (id channel nonce length last frames status usage notice retention_s)...
-- Appends and publishes frames of several jobs, those of a job as one entry with the id of its last
-- frame, if its log has this many entries and its record this nonce. status is '' unless the last
-- frame is a terminal event, which closes the record and adds usage (JSON) to unsettled; if webhooks
-- are to be told, notice (JSON) to outbox; and, if other jobs wait for this one, its id to parents.
-- The last two are channels, too. Returns for each job: 1 they are in the log, also from an earlier
-- run; 0 refused, the record has another nonce; 2 the log is shorter than what the attempt has
-- appended, because Redis has lost recent writes.
-- include shared/retention.lua
local answer, live, deadlines, followed, unsettled, parents, outbox =
    {}, unpack(KEYS, 1, 6)
local function close(id, log, record, audience, status, usage, notice, retention_s)
    local time = redis.call('TIME')
    local at = string.format('%.6f', time[1] + time[2] / 1e6)
    redis.call('HSET', record, 'status', status, 'ended_at', at)
    -- The nonce is there, as was checked: of two fields that go, the other one was, too.
    if redis.call('HDEL', record, 'nonce', 'children') == 2 then
        redis.call('ZADD', parents, at, id)
        redis.call('PUBLISH', parents, id)
    end
    keep(record, log, ARGV[1], ARGV[2], retention_s)
    redis.call('DEL', audience)
    redis.call('ZREM', live, id)
    redis.call('ZREM', deadlines, id)
    redis.call('ZREM', followed, id)
    redis.call('XADD', unsettled, 'MAXLEN', '~', 1000000, '*', 'job', id, 'usage', usage)
    if notice ~= '' then
        redis.call('XADD', outbox, 'MAXLEN', '~', 1000000, '*', 'e', notice)
        redis.call('PUBLISH', outbox, id)
    end
end
for i = 1, (#KEYS - 6) / 3 do
    local log, record, audience = unpack(KEYS, 4 + i * 3, 6 + i * 3)
    local id, channel, nonce, length, last, frames, status, usage, notice, retention_s =
        unpack(ARGV, i * 10 - 7, i * 10 + 2)
    -- A damaged log or record of one job keeps no other's frames waiting.
    local is_length, wanted = redis.pcall('XLEN', log), tonumber(length)
    local is_held = redis.pcall('HGET', record, 'nonce') == nonce
    if type(is_length) ~= 'number' then answer[i] = 0
    elseif is_held and is_length == wanted then
        redis.call('XADD', log, last, 'f', frames)
        redis.call('PUBLISH', channel, frames)
        answer[i] = 1
        if status ~= '' then
            close(id, log, record, audience, status, usage, notice, retention_s)
        end
    else
        local same = redis.call('XRANGE', log, last, last)[1]
        if same and same[2][2] == frames then answer[i] = 1
        elseif is_held and is_length < wanted then answer[i] = 2
        else answer[i] = 0 end
    end
end
return answer
