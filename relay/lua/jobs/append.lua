#!lua flags=allow-oom
-- KEYS live deadlines (log record)...; ARGV ttl_s (channel nonce length frame status)...
-- Appends and publishes frames of several jobs, each if its log has this length and its record
-- this nonce. status is '' except for a terminal event, which closes the record. Returns for each
-- frame: 1 it is in the log, also from an earlier run; 0 refused, the record has another nonce;
-- 2 the log is shorter than what the attempt has appended, because Redis has lost recent writes.
local answer, lengths, nonces = {}, {}, {}
for i = 1, (#KEYS - 2) / 2 do
    local log, record = KEYS[1 + i * 2], KEYS[2 + i * 2]
    local channel, nonce, length, frame, status = unpack(ARGV, i * 5 - 3, i * 5 + 1)
    length = tonumber(length)
    local id = string.match(frame, '^%S+')
    local is_length = lengths[log] or redis.call('XLEN', log)
    if nonces[record] == nil then nonces[record] = redis.call('HGET', record, 'nonce') end
    local holder = nonces[record]
    if is_length == length and holder == nonce then
        redis.call('XADD', log, id, 'f', frame)
        redis.call('PUBLISH', channel, frame)
        answer[i], is_length = 1, is_length + 1
        if status ~= '' then
            nonces[record] = false
            local time, job = redis.call('TIME'), redis.call('HGET', record, 'id')
            redis.call('HSET', record, 'status', status, 'ended_at',
                       string.format('%.6f', time[1] + time[2] / 1e6))
            redis.call('HDEL', record, 'nonce')
            redis.call('EXPIRE', record, ARGV[1])
            redis.call('EXPIRE', log, ARGV[1])
            redis.call('ZREM', KEYS[1], job)
            redis.call('ZREM', KEYS[2], job)
        end
    else
        local same = redis.call('XRANGE', log, id, id)[1]
        if same and same[2][2] == frame then answer[i] = 1
        elseif is_length < length and holder == nonce then answer[i] = 2
        else answer[i] = 0 end
    end
    lengths[log] = is_length
end
return answer
