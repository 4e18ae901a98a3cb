-- Defines keep(...): lets record and log of a job that has ended expire. retention_s is '' for ttl_s;
-- 0: the log is read for grace_s more, and the record has no text from now on; else the seconds, of
-- which a damaged record may have none: then it is kept as others.
-- include shared/attempt.lua
local function keep(record, log, ttl_s, grace_s, retention_s)
    local log_s = ttl_s
    if retention_s == '0' then
        log_s = grace_s
        redis.call('HDEL', record, 'request', 'metadata', 'callback_url', 'conversation',
                   'traceparent', 'tracestate')
    elseif (whole(retention_s, 1) or math.huge) < tonumber(ttl_s) then
        ttl_s, log_s = retention_s, retention_s
    end
    redis.call('EXPIRE', record, ttl_s)
    redis.call('EXPIRE', log, log_s)
end
