#!lua flags=allow-oom
-- KEYS as shared/queue.lua
-- ARGV as shared/queue.lua, then id old new_attempt delay_s ticket facts
-- Returns a held or lost job to its place in the queue, now or after delay_s. old is the attempt that
-- may hold it, '<attempt> <worker>' for that of one worker alone. facts are used if Redis has lost
-- them, or if they are of another target of the job's alias. Returns 1; 0: another attempt holds it,
-- or it waits already; -1: these are needed, and damaged.
-- include shared/queue.lua
local id, old, new_attempt, delay_s, ticket, old_facts = unpack(ARGV, 3)
local holder = redis.call('HGET', holders, id)
local attempt = holder and string.match(holder, '^(%d+) ')  -- nil of a damaged one
if attempt and attempt ~= old and holder ~= old then return 0 end
if not holder and (redis.call('ZSCORE', backlog, id) or redis.call('ZSCORE', delayed, id)) then
    return 0
end
local job, its = known(id), cjson.decode(old_facts)
if not job or job.target ~= its.target then job = its end
job.attempt, job.passed = tonumber(new_attempt), nil
if not is_sound(job) then return -1 end
redis.call('ZREM', leases, id)
redis.call('HDEL', holders, id)
note(id, job)
if tonumber(delay_s) > 0 then
    if redis.call('ZADD', delayed, exact(now + delay_s), id) == 1 then count(job, 1, scheduled) end
    redis.call('ZADD', queues, exact(now), queue)
    return 1
end
wait(id, job)
if redis.call('EXISTS', paused) == 0
        and redis.call('LLEN', tickets) < redis.call('ZCARD', backlog) then
    redis.call('LPUSH', tickets, ticket)
end
return 1
