-- Names the first KEYS and ARGV of a queue's scripts:
-- KEYS backlog urgent delayed facts leases holders clocks load queues tickets lines arrivals idle
--   paused scheduled
-- ARGV queue line_pattern
-- Keys beyond KEYS: line(variant), the part of the backlog for one model with one context length.
-- Defines wait, leave and revive, which move a job (wait also one that waits already); list, which adds
-- a waiting job to the lists beside the backlog; virtual_start, and arrive, which gives a job its
-- place in the order; known and note, which read and write its facts. A scheduled job has due, share
-- and flow in its facts (relay/order.py) until it arrives.
-- include shared/time.lua
-- include shared/key_pattern.lua
local backlog, urgent, delayed, facts, leases, holders, clocks, load, queues, tickets, lines,
    arrivals, idle, paused, scheduled = unpack(KEYS)
local queue = ARGV[1]
local line = keys_like(ARGV[2])
local function variant(job) return job.ctx and job.model .. '#ctx=' .. job.ctx or job.model end
-- A line of another type keeps no job waiting: those that ask for any model find it. The maintainer
-- sees it in lines, and makes it anew (repair/place).
local function head_changed(name)
    local head = redis.pcall('ZRANGE', line(name), 0, 0, 'WITHSCORES')
    if head.err then redis.call('ZADD', lines, exact(now), name)
    elseif head[1] then redis.call('ZADD', lines, head[2], name)
    else redis.call('ZREM', lines, name) end
end
-- Fields of facts that are read, by the type that they must have.
local number_fields = {'v', 'attempt', 'tokens', 'slack', 'start', 'at', 'due', 'share', 'bytes',
                       'passed', 'away'}
local text_fields = {'tenant', 'model', 'conv', 'flow'}
local function is_sound(job)
    for _, name in ipairs(number_fields) do
        local value = job[name]
        if value ~= nil and not (type(value) == 'number' and value > -1e15 and value < 1e15) then
            return false
        end
    end
    for _, name in ipairs(text_fields) do
        if job[name] ~= nil and type(job[name]) ~= 'string' then return false end
    end
    local attempt, ctx = job.attempt, job.ctx
    return job.v and job.tokens and job.slack and job.tenant
        and (job.start or job.due and job.share and job.flow)
        and attempt and attempt >= 1 and attempt < 1e9 and attempt % 1 == 0
        and (ctx == nil or type(ctx) == 'string' and string.match(ctx, '^%d+$'))
end
local function known(id)
    local text = redis.call('HGET', facts, id)
    if not text then return nil end
    local is_json, job = pcall(cjson.decode, text)
    if is_json and type(job) == 'table' and is_sound(job) then return job end
    redis.call('HDEL', facts, id)  -- damaged: the maintainer restores them from the record
    return nil
end
-- What nobody has counted or reached, as nan or a number of 400 digits, is 0.
local function sane(text, most)
    local number = tonumber(text or 0) or 0
    return number >= 0 and number < most and number or 0
end
local most_counted, most_ahead_s = 1e15, 1e11
local function note(id, job) redis.call('HSET', facts, id, cjson.encode(job)) end

local function count(job, sign, into)
    local fields = {'tokens', 'jobs ' .. job.tenant, 'tokens ' .. job.tenant}
    local by = {job.tokens, 1, job.tokens}
    local function also(field, size)
        table.insert(fields, field)
        table.insert(by, size)
    end
    if job.bytes then
        also('bytes', job.bytes)
        also('bytes ' .. job.tenant, job.bytes)
    end
    if job.interactive then also('interactive', 1) end
    local kept, gone = {}, {}
    for i, had in ipairs(redis.call('HMGET', into, unpack(fields))) do
        local has = sane(had, most_counted) + sign * by[i]
        if has > 0 then
            table.insert(kept, fields[i])
            table.insert(kept, string.format('%.0f', has))
        else table.insert(gone, fields[i]) end
    end
    if #kept > 0 then redis.call('HSET', into, unpack(kept)) end
    if #gone > 0 then redis.call('HDEL', into, unpack(gone)) end
end
-- Behind all others waits a message whose conversation has an earlier one that has not ended.
-- Its conversation is in behind, whose claims bring it back (queues/claim).
local behind_s = 1e9
local function note_behind(behind, conversation)
    if type(redis.pcall('ZADD', behind, exact(now), conversation)) ~= 'number' then
        redis.call('DEL', behind)  -- damaged: what it had comes back as others are claimed
        redis.call('ZADD', behind, exact(now), conversation)
    end
    redis.call('EXPIRE', behind, 86400)
end
local function list(id, job, score)
    redis.call('ZADD', arrivals, 'NX', exact(job.at or now), id)
    if not job.batch then redis.call('ZADD', urgent, score, id) end
    if job.model then
        redis.pcall('ZADD', line(variant(job)), score, id)
        head_changed(variant(job))
    end
    redis.call('ZADD', queues, exact(now), queue)
end
local function wait(id, job)
    local score = exact(job.start + job.slack + (job.behind and behind_s or 0))
    if redis.call('ZREM', delayed, id) == 1 then count(job, -1, scheduled) end
    if redis.call('ZADD', backlog, score, id) == 1 then count(job, 1, load) end
    list(id, job, score)
end
local function leave(id, job)
    if redis.call('ZREM', backlog, id) == 1 and job then count(job, -1, load) end
    redis.call('ZREM', urgent, id)
    if redis.call('ZREM', delayed, id) == 1 and job then count(job, -1, scheduled) end
    redis.call('ZREM', arrivals, id)
    if job and job.model then
        redis.pcall('ZREM', line(variant(job)), id)
        head_changed(variant(job))
    end
end
-- depth: how many jobs wait.
local function virtual_start(depth, flow)
    if depth == 0 then return now end
    local reached, clock = unpack(redis.call('HMGET', clocks, 'now', flow))
    return math.max(reached and sane(reached, now + most_ahead_s) or now,
                    sane(clock, now + most_ahead_s))
end
local function arrive(id, job, depth, flow, cost_s)
    job.start, job.at = virtual_start(depth, flow), now
    if depth == 0 then
        redis.call('DEL', clocks, load, arrivals)
        redis.call('HSET', clocks, 'now', exact(now))
    end
    redis.call('HSET', clocks, flow, exact(job.start + cost_s))
    local number = redis.pcall('HINCRBY', clocks, 'arrivals', 1)
    if type(number) ~= 'number' then  -- damaged: it counts anew
        number = 0
        redis.call('HDEL', clocks, 'arrivals')
    end
    job.slack = job.slack + number % 1000 / 1e6
    redis.call('EXPIRE', clocks, 86400)
    note(id, job)
    wait(id, job)
end
local function arrive_as_scheduled(id, job)
    local flow, share = job.flow, job.share
    job.due, job.flow, job.share = nil, nil, nil
    arrive(id, job, redis.call('ZCARD', backlog), flow, share)
end
local function revive(limit)
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', delayed, '-inf', exact(now),
                                   'LIMIT', 0, limit)) do
        local job = known(id)
        if not job then redis.call('ZREM', delayed, id)
        elseif job.due then arrive_as_scheduled(id, job)
        else wait(id, job) end
    end
end
