-- KEYS keys; ARGV known revision
-- Returns {now, revision}, and the table (HGETALL) if its revision is not the known one.
local time = redis.call('TIME')
local now = string.format('%d.%06d', time[1], time[2])
local revision = redis.call('HGET', KEYS[1], 'revision') or ''
if revision == ARGV[1] then return {now, revision} end
return {now, revision, redis.call('HGETALL', KEYS[1])}
