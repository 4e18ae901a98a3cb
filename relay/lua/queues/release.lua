#!lua flags=allow-oom
-- KEYS as shared/queue.lua, then drained (the counter of this minute)
-- ARGV as shared/queue.lua, then id holder ('': any)
-- Removes a job that has ended. Returns its holder, '<attempt> <worker>'; false: it had none, or
-- another one than holder.
-- include shared/queue.lua
local drained = KEYS[14]
local id, expected = unpack(ARGV, 3)
local holder = redis.call('HGET', holders, id)
if expected ~= '' and holder ~= expected then return false end
if not holder or redis.call('ZSCORE', backlog, id) then leave(id, known(id)) end
redis.call('HDEL', facts, id)
redis.call('ZREM', leases, id)
redis.call('HDEL', holders, id)
if holder then
    if redis.call('INCR', drained) == 1 then redis.call('EXPIRE', drained, 900) end
end
return holder
