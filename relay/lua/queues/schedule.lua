#!lua flags=allow-oom
-- KEYS as shared/queue.lua, then schedule
-- ARGV as shared/queue.lua, then seen new ('': none) why ('': not paused) until_ms ('': no end)
-- Replaces a queue's schedule, if it still is what the caller has seen, and pauses the queue until
-- a time if why is not '', else resumes it. Returns 1; 0: the schedule is another one, or until_ms
-- has passed, and nothing was done. The idle slots of workers are forgotten, because jobs are
-- assigned to those without a claim (docs/adr/0038).
-- include shared/queue.lua
local schedule = KEYS[16]
local seen, new, why, until_ms = unpack(ARGV, 3)
if (redis.call('GET', schedule) or '') ~= seen then return 0 end
if why ~= '' and until_ms ~= '' and tonumber(until_ms) <= now * 1000 then return 0 end
if new == '' then redis.call('DEL', schedule) else redis.call('SET', schedule, new) end
redis.call('ZADD', queues, exact(now), queue)
if why == '' then
    redis.call('DEL', paused)
else
    if until_ms == '' then redis.call('SET', paused, why)
    else redis.call('SET', paused, why, 'PXAT', until_ms) end
    redis.call('DEL', idle)
end
return 1
