#!lua flags=allow-oom
-- KEYS key; ARGV old_job new_job
-- Replaces the job of a key. Returns 1; 0: its job is not old_job.
if redis.call('HGET', KEYS[1], 'job') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'job', ARGV[2])
return 1
