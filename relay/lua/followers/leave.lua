#!lua flags=allow-oom
-- KEYS record audience followed; ARGV job process grace_s ('': not a disconnect)
-- Removes a process. Returns the seconds of the timer if this has started it; else false.
-- include shared/followed.lua
local process, grace_s = ARGV[2], ARGV[3]
redis.call('ZREM', audience, process)
redis.call('ZREMRANGEBYSCORE', audience, '-inf', now)
local last = redis.call('ZREVRANGE', audience, 0, 0, 'WITHSCORES')
if last[1] then
    redis.call('ZADD', followed, last[2], job)
elseif not patience_s and grace_s == '' then
    redis.call('ZREM', followed, job)
else
    patience_s = patience_s or tonumber(grace_s)
    redis.call('ZADD', followed, exact(now + patience_s), job)
    return tostring(patience_s)
end
return false
