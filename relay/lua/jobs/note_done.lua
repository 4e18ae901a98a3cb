#!lua flags=allow-oom
-- KEYS record; ARGV ids
-- Notes in the record of a job that waits which of those that it waits for are done: they may be
-- removed before it starts. Returns 1, or 0 if there is no such job any more.
local record = KEYS[1]
if redis.call('HEXISTS', record, 'status') == 0 then return 0 end
redis.call('HSET', record, 'done', ARGV[1])
return 1
