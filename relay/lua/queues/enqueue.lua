#!lua
-- KEYS and ARGV as shared/queue.lua and shared/arrival.lua; then ARGV ticket wake_pattern.
-- Returns {position}, 0 if the job is held already; or a refusal (shared/arrival.lua).
-- A ticket is sent only if there are fewer tickets than waiting jobs: every ticket claims one job
-- or finds that none waits (docs/adr/0001). Of two jobs with the same virtual start the earlier
-- one is first. If a worker has an idle slot, it gets a message on its wake channel instead of a
-- ticket (docs/adr/0035); a worker that no longer subscribes to its channel is removed.
-- include shared/arrival.lua
local wakes = keys_like(ARGV[13])
local function wakes_idle_slot()
    while true do
        local worker = redis.call('ZREVRANGE', idle, 0, 0)[1]
        if not worker then return false end
        if tonumber(redis.call('ZINCRBY', idle, -1, worker)) <= 0 then
            redis.call('ZREM', idle, worker)
        end
        if redis.call('PUBLISH', wakes(worker), queue) > 0 then return true end
        redis.call('ZREM', idle, worker)
    end
end
local rank = redis.call('ZRANK', backlog, id)
if rank then return {rank + 1} end
if redis.call('HEXISTS', facts, id) == 1 then return {0} end
local refused = refusal()
if refused then return refused end
job.start, job.at = start(), now
if depth == 0 then
    redis.call('DEL', clocks, load, arrivals)
    redis.call('HSET', clocks, 'now', exact(now))
end
redis.call('HSET', clocks, flow, exact(job.start + cost_s))
job.slack = job.slack + redis.call('HINCRBY', clocks, 'arrivals', 1) % 1000 / 1e6
redis.call('EXPIRE', clocks, 86400)
note(id, job)
wait(id, job)
if redis.call('LLEN', tickets) <= depth and not wakes_idle_slot() then
    redis.call('LPUSH', tickets, ARGV[12])
end
return {redis.call('ZRANK', backlog, id) + 1}
