-- Names the first KEYS and ARGV of a queue's scripts:
-- KEYS backlog urgent delayed facts leases holders clocks load queues tickets lines arrivals idle
--   paused
-- ARGV queue line_pattern
-- Keys beyond KEYS: line(variant), the part of the backlog for one model with one context length.
-- Defines wait, leave and revive, which move a job; known and note, which read and write its
-- facts.
-- include shared/time.lua
-- include shared/key_pattern.lua
local backlog, urgent, delayed, facts, leases, holders, clocks, load, queues, tickets, lines,
    arrivals, idle, paused = unpack(KEYS)
local queue = ARGV[1]
local line = keys_like(ARGV[2])
local function variant(job) return job.ctx and job.model .. '#ctx=' .. job.ctx or job.model end
local function head_changed(name)
    local head = redis.call('ZRANGE', line(name), 0, 0, 'WITHSCORES')
    if head[1] then redis.call('ZADD', lines, head[2], name)
    else redis.call('ZREM', lines, name) end
end
local function known(id)
    local text = redis.call('HGET', facts, id)
    return text and cjson.decode(text)
end
local function note(id, job) redis.call('HSET', facts, id, cjson.encode(job)) end

local function count(job, sign)
    for field, by in pairs({['tokens'] = job.tokens, ['jobs ' .. job.tenant] = 1,
                            ['tokens ' .. job.tenant] = job.tokens}) do
        if redis.call('HINCRBY', load, field, sign * by) <= 0 then
            redis.call('HDEL', load, field)
        end
    end
end
local function wait(id, job)
    local score = exact(job.start + job.slack)
    redis.call('ZREM', delayed, id)
    if redis.call('ZADD', backlog, score, id) == 1 then count(job, 1) end
    redis.call('ZADD', arrivals, 'NX', exact(job.at or now), id)
    if not job.batch then redis.call('ZADD', urgent, score, id) end
    if job.model then
        redis.call('ZADD', line(variant(job)), score, id)
        head_changed(variant(job))
    end
    redis.call('ZADD', queues, exact(now), queue)
end
local function leave(id, job)
    if redis.call('ZREM', backlog, id) == 1 and job then count(job, -1) end
    redis.call('ZREM', urgent, id)
    redis.call('ZREM', delayed, id)
    redis.call('ZREM', arrivals, id)
    if job and job.model then
        redis.call('ZREM', line(variant(job)), id)
        head_changed(variant(job))
    end
end
local function revive(limit)
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', delayed, '-inf', exact(now),
                                   'LIMIT', 0, limit)) do
        local job = known(id)
        if job then wait(id, job) else redis.call('ZREM', delayed, id) end
    end
end
