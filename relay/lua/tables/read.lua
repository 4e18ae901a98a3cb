#!lua flags=no-writes,allow-oom
-- KEYS table; ARGV known revision
-- Returns {revision}, and the table (HGETALL) if its revision is not the known one.
local revision = redis.call('HGET', KEYS[1], 'revision') or ''
if revision == ARGV[1] then return {revision} end
return {revision, redis.call('HGETALL', KEYS[1])}
