#!lua flags=allow-oom
-- KEYS record log; ARGV channel attempt counts (1 or 0) queued is_lost (1 or 0) queue nonce
-- Takes a job from its holder: increments the attempt and appends queued. Returns {state,
-- attempt}: 'queued'; 'ended'; 'moved' (it is in another queue); 'stale' (another attempt holds it,
-- also one with this number and another nonce; '': of any nonce); 'exhausted' (no attempt is left,
-- nothing was written); 'damaged' (the record has no number where one must be, or one that its log is
-- beyond: nothing was written). If counts is 0, the attempt is not counted as a try.
-- include shared/event.lua
-- include shared/attempt.lua
-- include shared/ended.lua
local record, log = unpack(KEYS)
local channel, before, counts, queued, is_lost, queue, nonce = unpack(ARGV)
local status, attempt, tries, limit, its, held_by = unpack(redis.call(
    'HMGET', record, 'status', 'attempt', 'tries', 'max_attempts', 'queue', 'nonce'))
if ended[status] or redis.call('EXISTS', record) == 0 then return {'ended', 0} end
before, attempt, limit = tonumber(before), whole(attempt, 1), whole(limit, 1)
local is_whole = status and its and attempt and (limit or counts ~= '1')
if not is_whole or attempt < logged(log) then return {'damaged', 0} end
if its ~= queue then return {'moved', attempt} end
if attempt == before + 1 and status == 'queued' then return {'queued', attempt} end
if attempt ~= before or nonce ~= '' and held_by ~= nonce then return {'stale', attempt} end
tries = whole(tries, 0) or 0
if counts == '1' then
    if tries >= limit then return {'exhausted', before} end
elseif status == 'running' then
    redis.call('HSET', record, 'tries', math.max(0, tries - 1))
end
redis.call('HSET', record, 'attempt', before + 1, 'status', 'queued')
redis.call('HDEL', record, 'nonce')
if is_lost == '1' then
    redis.call('HSET', record, 'lost', (whole(redis.call('HGET', record, 'lost'), 0) or 0) + 1)
end
add_event(log, channel, before + 1, 0, 'queued', queued)
return {'queued', before + 1}
