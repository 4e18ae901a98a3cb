#!lua flags=allow-oom
-- KEYS record log; ARGV channel attempt counts (1 or 0) queued is_lost (1 or 0) queue nonce
-- Takes a job from its holder: increments the attempt and appends queued. Returns {state,
-- attempt}: 'queued'; 'ended'; 'moved' (it is in another queue); 'stale' (another attempt holds it,
-- also one with this number and another nonce; '': of any nonce); 'exhausted' (no attempt is left,
-- nothing was written). If counts is 0, the attempt is not counted as a try.
-- include shared/event.lua
-- include shared/ended.lua
local record, log = unpack(KEYS)
local channel, before, counts, queued, is_lost, queue, nonce = unpack(ARGV)
local status, attempt, tries, limit, its, held_by = unpack(redis.call(
    'HMGET', record, 'status', 'attempt', 'tries', 'max_attempts', 'queue', 'nonce'))
if not status or ended[status] then return {'ended', 0} end
if its ~= queue then return {'moved', tonumber(attempt)} end
before, attempt = tonumber(before), tonumber(attempt)
if attempt == before + 1 and status == 'queued' then return {'queued', attempt} end
if attempt ~= before or nonce ~= '' and held_by ~= nonce then return {'stale', attempt} end
if counts == '1' then
    if tonumber(tries) >= tonumber(limit) then return {'exhausted', before} end
elseif status == 'running' then
    redis.call('HINCRBY', record, 'tries', -1)
end
redis.call('HSET', record, 'attempt', before + 1, 'status', 'queued')
redis.call('HDEL', record, 'nonce')
if is_lost == '1' then redis.call('HINCRBY', record, 'lost', 1) end
add_event(log, channel, before + 1, 0, 'queued', queued)
return {'queued', before + 1}
