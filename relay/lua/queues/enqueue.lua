#!lua
-- KEYS and ARGV as shared/queue.lua and shared/arrival.lua; ARGV besides: ticket.
-- Returns {position}, 0 if the job is held already; or a refusal (shared/arrival.lua).
-- A ticket is only sent where there are fewer tickets than waiting jobs: every ticket claims one
-- job or finds that none waits (docs/adr/0001). Of two jobs that start alike the first is first.
-- include shared/arrival.lua
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
if redis.call('LLEN', tickets) <= depth then redis.call('LPUSH', tickets, ARGV[12]) end
return {redis.call('ZRANK', backlog, id) + 1}
