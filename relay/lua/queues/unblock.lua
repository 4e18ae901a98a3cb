#!lua flags=allow-oom
-- KEYS as shared/queue.lua; ARGV as shared/queue.lua, then id due
-- Has a job that waits for other jobs join the backlog at a time, if it still waits for them.
-- Returns 1 or 0.
-- include shared/queue.lua
local id, due = ARGV[3], ARGV[4]
local score = redis.call('ZSCORE', delayed, id)
local job = score and known(id)
if not job or not job.due or tonumber(score) <= tonumber(due) then return 0 end
job.due = tonumber(due)
note(id, job)
redis.call('ZADD', delayed, exact(job.due), id)
return 1
