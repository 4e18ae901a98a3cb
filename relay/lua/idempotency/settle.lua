-- KEYS key; ARGV old_job new_job
-- Makes a key lead to another job. Returns 1; 0: it leads to none or another one already.
if redis.call('HGET', KEYS[1], 'job') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'job', ARGV[2])
return 1
