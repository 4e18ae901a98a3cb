#!lua flags=allow-oom
-- KEYS record audience followed; ARGV job
-- Returns 1 if the time that the job may be without followers is over; else false. After a lease
-- has expired, the timer runs from its expiry.
-- include shared/followed.lua
local due = redis.call('ZSCORE', followed, job)
if not due or tonumber(due) > now then return false end
local last = redis.call('ZREVRANGE', audience, 0, 0, 'WITHSCORES')
local until_at = last[2] and tonumber(last[2])
if until_at and until_at <= now then
    redis.call('DEL', audience)
    until_at = until_at + (patience_s or 0)
end
if until_at and until_at > now then
    redis.call('ZADD', followed, exact(until_at), job)
    return false
end
return 1
