-- Defines what changes the queue of a webhook's receiver, which has a name, `<tenant>/<id>`, and is in
-- a lane: obstacle(...), why it has no room for one more delivery, '' if it has; push(...), which adds
-- one; leave(...), which counts those that have left; schedule(...), which says when the receiver is
-- tried next, '' if it has nothing to deliver; keep(...), which lists a delivery that has ended, of a
-- job with a retention of its own without the address that its request named and an error's text. It
-- returns the error of a list that is damaged, which keeps nothing waiting, else ''.
-- include shared/time.lua
local function obstacle(queue, in_lane, waiting, tenant, most, most_of_tenant)
    local count = redis.call('XLEN', queue)
    -- A queue takes four kilobytes, however little it holds.
    if count == 0 and redis.call('ZCARD', in_lane) >= tonumber(most) then
        return 'deliveries waited for ' .. most .. ' other receivers of its tenant'
    end
    if count >= tonumber(most) then
        return 'the queue of its receiver was full: ' .. most .. ' deliveries waited'
    end
    if (tonumber(redis.call('HGET', waiting, tenant) or 0) or 0) >= tonumber(most_of_tenant) then
        return 'the queues of its tenant were full: ' .. most_of_tenant .. ' deliveries waited'
    end
    return ''
end
local function schedule(due, in_lane, lane, name, at)
    if at == '' then redis.call('ZREM', in_lane, name)
    else redis.call('ZADD', in_lane, at, name) end
    local first = redis.call('ZRANGE', in_lane, 0, 0, 'WITHSCORES')
    if first[1] then redis.call('ZADD', due, first[2], lane)
    else redis.call('ZREM', due, lane) end
end
-- What is no number was not written by the fleet: it counts anew.
local function count(waiting, tenant, by)
    local now_waiting = redis.pcall('HINCRBY', waiting, tenant, by)
    if type(now_waiting) == 'number' then return now_waiting end
    redis.call('HDEL', waiting, tenant)
    return redis.call('HINCRBY', waiting, tenant, math.max(0, by))
end
local function push(queue, in_lane, due, waiting, lane, name, tenant, delivery)
    if redis.call('XLEN', queue) == 0 then
        schedule(due, in_lane, lane, name, exact(now))
    end
    redis.call('XADD', queue, '*', 'd', delivery)
    count(waiting, tenant, 1)
end
local function leave(queue, waiting, tenant, left)
    if count(waiting, tenant, -left) <= 0 then redis.call('HDEL', waiting, tenant) end
    if redis.call('XLEN', queue) == 0 then redis.call('DEL', queue) end
end
local function without_texts(delivery)
    if not string.find(delivery, '"forget":true', 1, true) then return delivery end
    local is_read, fields = pcall(cjson.decode, delivery)
    if not is_read or type(fields) ~= 'table' or fields.forget ~= true then return delivery end
    fields.url = nil
    if fields.type == 'job.failed' or fields.type == 'job.cancelled' then fields.body = '' end
    return cjson.encode(fields)
end
local function keep(deliveries, delivery, state, tries, status, error, most, ttl_s)
    local added = redis.pcall('XADD', deliveries, 'MAXLEN', '~', most, '*', 'd',
                             without_texts(delivery), 'state', state,
                             'tries', tries, 'status', status, 'error', error)
    redis.call('EXPIRE', deliveries, ttl_s)
    return type(added) == 'table' and added.err or ''
end
