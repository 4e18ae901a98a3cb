#!lua
-- KEYS record log live deadlines recent tenants_recent [single]
-- ARGV id channel queued deadline_s ('': none) record_pattern (field value)...
-- Keys beyond KEYS: the record of the job that single names.
-- Writes a job's record and its first event, 1-0. Returns {id, created_at}, also if it exists;
-- {other id}: single names a job that has not ended.
-- include shared/event.lua
-- include shared/ended.lua
-- include shared/key_pattern.lua
local record, log, live, deadlines, recent, tenants_recent, single = unpack(KEYS)
local id, channel, queued, deadline_s, record_pattern = unpack(ARGV, 1, 5)
if redis.call('EXISTS', record) == 1 then
    return {id, redis.call('HGET', record, 'created_at')}
end
if single then
    local other = redis.call('GET', single)
    local status = other and redis.call('HGET', keys_like(record_pattern)(other), 'status')
    if status and not ended[status] then return {other} end
    redis.call('SET', single, id, 'EX', 604800)
end
redis.call('HSET', record, 'created_at', exact(now), unpack(ARGV, 6))
if deadline_s ~= '' then
    local deadline = exact(now + deadline_s)
    redis.call('HSET', record, 'deadline_at', deadline)
    redis.call('ZADD', deadlines, deadline, id)
end
redis.call('ZADD', live, exact(now), id)
redis.call('ZADD', recent, exact(now), id)
redis.call('ZADD', tenants_recent, exact(now), id)
redis.call('ZREMRANGEBYRANK', tenants_recent, 0, -100001)
redis.call('EXPIRE', tenants_recent, 2592000)
add_event(log, channel, 1, 0, 'queued', queued)
return {id, exact(now)}
