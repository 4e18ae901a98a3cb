#!lua flags=allow-oom
-- KEYS as shared/queue.lua
-- ARGV as shared/queue.lua, then id
-- Removes a waiting job from its queue, for it moves to another one. Returns 1; 0: a worker holds
-- it, or it is not there.
-- include shared/queue.lua
local id = ARGV[3]
if redis.call('HEXISTS', holders, id) == 1 then return 0 end
local waits = redis.call('ZSCORE', backlog, id) or redis.call('ZSCORE', delayed, id)
if not waits then return 0 end
leave(id, known(id))
redis.call('HDEL', facts, id)
return 1
