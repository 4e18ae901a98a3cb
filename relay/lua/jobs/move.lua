#!lua flags=allow-oom
-- KEYS record log; ARGV channel attempt nonce target queued (field value)...
-- Takes a job from its holder, if it has one, and makes it one of another target of its alias, with
-- these fields ('': it has none): increments the attempt and appends queued. Returns {state, attempt}: 'queued';
-- 'ended'; 'stale' (another attempt holds it, also one with this number and another nonce; '': of
-- a job that waits). The new target has all attempts of the job.
-- include shared/event.lua
-- include shared/attempt.lua
-- include shared/ended.lua
local record, log = unpack(KEYS)
local channel, before, nonce, target, queued = unpack(ARGV, 1, 5)
local status, attempt, at, held_by =
    unpack(redis.call('HMGET', record, 'status', 'attempt', 'target', 'nonce'))
if not status or ended[status] then return {'ended', 0} end
before, attempt = tonumber(before), whole(attempt, 1) or 0
if attempt == before + 1 and status == 'queued' and at == target then return {'queued', attempt} end
if attempt ~= before or (held_by or '') ~= nonce then return {'stale', attempt} end
redis.call('HSET', record, 'attempt', before + 1, 'status', 'queued', 'tries', 0, 'target', target)
redis.call('HDEL', record, 'nonce')
for i = 6, #ARGV, 2 do
    if ARGV[i + 1] == '' then redis.call('HDEL', record, ARGV[i])
    else redis.call('HSET', record, ARGV[i], ARGV[i + 1]) end
end
add_event(log, channel, before + 1, 0, 'queued', queued)
return {'queued', before + 1}
