#!lua flags=allow-oom
-- KEYS record log dead recent tenants_recent; ARGV id
-- Deletes a dead letter's record, log and list entries. Returns 1; 0: the job is not a dead
-- letter.
if not redis.call('HGET', KEYS[1], 'dead_at') then return 0 end
redis.call('DEL', KEYS[1], KEYS[2])
for i = 3, 5 do redis.call('ZREM', KEYS[i], ARGV[1]) end
return 1
