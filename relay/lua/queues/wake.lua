#!lua flags=allow-oom
-- KEYS as shared/queue.lua, then schedule; ARGV as shared/queue.lua, then idle_s ticket...
-- Moves delayed jobs that are due to the backlog, and pushes missing tickets, so that there are as
-- many as waiting jobs; none while the queue is paused. Removes the name of a queue that was empty
-- for idle_s and has no schedule. Returns {number of tickets that are still missing, what is in
-- paused or '', what is in schedule or ''; Redis's error (WRONGTYPE ...) of a key of another type}.
-- include shared/queue.lua
revive(100)
local used_at = redis.call('ZSCORE', queues, queue)
local depth = redis.call('ZCARD', backlog)
local why = redis.call('MGET', paused)[1]
local schedule = redis.pcall('GET', KEYS[16])  -- MGET takes a key of another type for none
if type(schedule) == 'table' then schedule = schedule.err end
if redis.call('ZCARD', delayed) == 0 then redis.call('DEL', scheduled) end
if used_at and used_at + ARGV[3] < now and depth == 0 and not schedule
        and redis.call('ZCARD', leases) == 0 and redis.call('ZCARD', delayed) == 0 then
    redis.call('ZREM', queues, queue)
end
local missing = why and 0 or depth - redis.call('LLEN', tickets)
local sent = 0
for i = 4, #ARGV do
    if sent >= missing then break end
    redis.call('LPUSH', tickets, ARGV[i])
    sent = sent + 1
end
return {missing - sent, why or '', schedule or ''}
