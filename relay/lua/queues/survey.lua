#!lua flags=no-writes,allow-oom
-- KEYS none; ARGV the patterns of nine keys of a queue: backlog urgent delayed leases load
-- arrivals paused schedule, and of its counter of ended jobs up to the minute; the number of minutes, the minutes;
-- the most tenants of a queue, the time up to which what is due is delayed, not scheduled; then the
-- names of queues.
-- Keys beyond KEYS: those of the queues that are named.
-- Returns for each queue {waiting, waiting and not of class batch, delayed, leased, when the oldest
-- was enqueued or false, its load (field, value, ...) or false if it has too many tenants, counters
-- and, after them, what is in paused and in schedule, each or false; scheduled}.
-- What it does grows with the number of queues, not with the number of jobs.
-- include shared/key_pattern.lua
local backlog, urgent, delayed, leases, load, arrivals, paused, schedule, ended =
    keys_like(ARGV[1]), keys_like(ARGV[2]), keys_like(ARGV[3]), keys_like(ARGV[4]),
    keys_like(ARGV[5]), keys_like(ARGV[6]), keys_like(ARGV[7]), keys_like(ARGV[8]),
    keys_like(ARGV[9])
local minutes = tonumber(ARGV[10])
local most = tonumber(ARGV[11 + minutes])
local soon = ARGV[12 + minutes]
local stale = 8
local function oldest(queue)
    local flat = redis.call('ZRANGE', arrivals(queue), 0, stale - 1, 'WITHSCORES')
    for i = 1, #flat, 2 do
        if redis.call('ZSCORE', backlog(queue), flat[i]) then return flat[i + 1] end
    end
    return false
end
local function shares(queue)
    if redis.call('HLEN', load(queue)) > 3 * most + 3 then return false end
    return redis.call('HGETALL', load(queue))
end
local found = {}
for i = 13 + minutes, #ARGV do
    local queue = ARGV[i]
    local counters = {}
    for at = 1, minutes do counters[at] = keys_like(ended(queue))(ARGV[10 + at]) end
    counters[minutes + 1], counters[minutes + 2] = paused(queue), schedule(queue)
    local waiting = redis.call('ZCARD', backlog(queue))
    local row = {waiting, 0, redis.call('ZCARD', delayed(queue)),
                 redis.call('ZCARD', leases(queue)), false, {},
                 redis.call('MGET', unpack(counters)), 0}
    if waiting > 0 then
        row[2], row[5], row[6] = redis.call('ZCARD', urgent(queue)), oldest(queue), shares(queue)
    end
    if row[3] > 0 then
        row[8] = redis.call('ZCOUNT', delayed(queue), '(' .. soon, '+inf')
        row[3] = row[3] - row[8]
    end
    table.insert(found, row)
end
return found
