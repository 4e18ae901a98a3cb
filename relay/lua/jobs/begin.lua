#!lua
-- KEYS record log live deadlines recent tenants_recent audience followed [single]
-- ARGV id channel queued deadline_s ('': none) record_pattern
--   follower ('': none, 'expected', else a process) follower_s (field value)...
-- Keys beyond KEYS: the record of the job that single names.
-- Writes a job's record and its first event, 1-0. Returns {id, created_at}, also if it exists;
-- {other id}: single names a job that has not ended. A job that lives for its followers gets its
-- first one, a process with a lease of follower_s; or one is expected within follower_s.
-- include shared/event.lua
-- include shared/ended.lua
-- include shared/key_pattern.lua
local record, log, live, deadlines, recent, tenants_recent, audience, followed, single =
    unpack(KEYS)
local id, channel, queued, deadline_s, record_pattern, follower, follower_s = unpack(ARGV, 1, 7)
local created_at = redis.call('HGET', record, 'created_at')
if created_at then return {id, created_at} end
if single then
    local other = redis.call('GET', single)
    local status = other and redis.call('HGET', keys_like(record_pattern)(other), 'status')
    if status and not ended[status] then return {other} end
    redis.call('SET', single, id, 'EX', 604800)
end
created_at = exact(now)
if deadline_s == '' then
    redis.call('HSET', record, 'created_at', created_at, unpack(ARGV, 8))
else
    local deadline = exact(now + deadline_s)
    redis.call('HSET', record, 'created_at', created_at, 'deadline_at', deadline, unpack(ARGV, 8))
    redis.call('ZADD', deadlines, deadline, id)
end
redis.call('ZADD', live, created_at, id)
redis.call('ZADD', recent, created_at, id)
redis.call('ZADD', tenants_recent, created_at, id)
if redis.call('ZCARD', tenants_recent) % 64 == 1 then
    redis.call('ZREMRANGEBYRANK', tenants_recent, 0, -100001)
    redis.call('EXPIRE', tenants_recent, 2592000)
end
if follower ~= '' then
    redis.call('ZADD', followed, exact(now + follower_s), id)
    if follower ~= 'expected' then
        redis.call('ZADD', audience, exact(now + follower_s), follower)
        redis.call('EXPIRE', audience, math.ceil(follower_s * 10))
    end
end
add_event(log, channel, 1, 0, 'queued', queued)
return {id, created_at}
