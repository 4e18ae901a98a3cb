#!lua flags=allow-oom
-- KEYS record deadlines; ARGV id deadline_s ('': none) not_before ('': none)
-- Notes that a job waits for no other job any more; its deadline counts from when it may start.
-- Returns that time; also if it is run again, then without moving the deadline.
-- include shared/time.lua
local record, deadlines = unpack(KEYS)
local id, deadline_s, not_before = unpack(ARGV)
local due = math.max(now, tonumber(not_before) or 0)
if redis.call('HDEL', record, 'blocked') == 1 then
    redis.call('HSET', record, 'freed_at', exact(now))
    if deadline_s == '' then
        redis.call('HDEL', record, 'deadline_at')
        redis.call('ZREM', deadlines, id)
    else
        local deadline = exact(due + deadline_s)
        redis.call('HSET', record, 'deadline_at', deadline)
        redis.call('ZADD', deadlines, deadline, id)
    end
end
return exact(due)
