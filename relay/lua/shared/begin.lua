-- Names the first KEYS of the scripts that write a job's record: record log live deadlines recent
-- tenants_recent audience followed. Defines begin(...), which takes ARGV from its first argument on:
-- id channel queued deadline_s ('': none) follower ('': none, 'expected', else a process)
-- follower_s (field value)...
-- begin writes the record and the first event, 1-0; it returns {id, created_at}, also if the record
-- exists. A job that lives for its followers gets its first one, a process with a lease of
-- follower_s; or one is expected within follower_s.
-- include shared/event.lua
local record, log, live, deadlines, recent, tenants_recent, audience, followed = unpack(KEYS, 1, 8)
local function begin(id, channel, queued, deadline_s, follower, follower_s, ...)
    local created_at = redis.call('HGET', record, 'created_at')
    if created_at then return {id, created_at} end
    created_at = exact(now)
    if deadline_s == '' then
        redis.call('HSET', record, 'created_at', created_at, ...)
    else
        local deadline = exact(now + deadline_s)
        redis.call('HSET', record, 'created_at', created_at, 'deadline_at', deadline, ...)
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
end
