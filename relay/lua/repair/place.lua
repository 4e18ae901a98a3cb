#!lua flags=allow-oom
-- KEYS as shared/queue.lua, then behind
-- ARGV as shared/queue.lua, then lease_s recounts_load recounts_scheduled (1 or 0) id...
-- Makes anew what a queue has beside its facts of these jobs: a lease of one that a worker holds, the
-- lists and counts of one that waits. Returns the ids of jobs that are nowhere.
-- include shared/queue.lua
local behind = KEYS[16]
local lease_s, recounts_load, recounts_scheduled = ARGV[3], ARGV[4] == '1', ARGV[5] == '1'
local nowhere = {}
for i = 6, #ARGV do
    local id = ARGV[i]
    local job = known(id)
    local score = job and redis.call('ZSCORE', backlog, id)
    if redis.call('HEXISTS', holders, id) == 1 then
        redis.call('ZADD', leases, 'NX', exact(now + lease_s), id)
    elseif score then
        list(id, job, score)
        if job.behind and job.conv then note_behind(behind, job.conv) end
        if recounts_load then count(job, 1, load) end
    elseif job and redis.call('ZSCORE', delayed, id) then
        if recounts_scheduled then count(job, 1, scheduled) end
        redis.call('ZADD', queues, exact(now), queue)
    elseif job and not redis.call('ZSCORE', leases, id) then
        nowhere[#nowhere + 1] = id
    end
end
return nowhere
