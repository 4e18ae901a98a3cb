#!lua
-- KEYS and ARGV as shared/queue.lua and shared/arrival.lua; then KEYS homes addresses turns behind; ARGV
--   ticket wake_pattern assignment ('' for a job that is not assigned directly) conversation ('':
--   none) in_turn (1: the job waits for earlier messages of its conversation) record_pattern
-- Keys beyond KEYS: the records of the conversation's jobs.
-- Returns {position}, 0 if the job is held already, or is scheduled: it joins the backlog when it is
-- due (docs/adr/0051). Or a refusal (shared/arrival.lua). Of a paused
-- queue {position, 0, 0, why}: what is in paused. It gets no ticket, and has no idle slots.
-- If no other job waits and a worker that takes any job has an idle slot, the job is leased to it
-- at once: its wake channel gets the queue's name and the assignment (docs/adr/0037).
-- Otherwise the job waits. A worker with an idle slot gets the queue's name (docs/adr/0035). If
-- there is none, a ticket is sent, unless there are more tickets than waiting jobs: every ticket
-- claims one job or finds that none waits (docs/adr/0001). A message of a conversation goes to the
-- worker of its home, the address where the conversation ran last, if that works: it is assigned
-- there, or that worker is told, which passes a ticket on if it is busy (docs/adr/0055); one that
-- waits for an earlier message does so behind all other jobs. Of two jobs
-- with the same virtual start the earlier one is first. A worker that no longer subscribes to its
-- channel is removed.
-- include shared/queue.lua
-- include shared/home.lua
-- include shared/turns.lua
local homes, addresses, turns, behind = unpack(KEYS, 16)
local id, assignment, conversation, in_turn, record_pattern = ARGV[3], unpack(ARGV, 17)
local wakes = keys_like(ARGV[16])
if redis.call('HEXISTS', facts, id) == 1 then
    local rank = redis.call('ZRANK', backlog, id)
    return {rank and rank + 1 or 0}
end
local home, home_worker, home_lease_s, is_behind = nil, nil, nil, nil
if conversation ~= '' then
    home, home_worker, home_lease_s = home_of(homes, addresses, conversation)
    if home then assignment = assignment ~= '' and assignment .. ' ' .. home or '' end
    local first = in_turn == '1' and live_turns(turns, keys_like(record_pattern), 1)[1]
    is_behind = first and first ~= id or nil
    if is_behind then assignment = '' end
end
-- A conversation without a home begins at any of the workers with most idle slots, so that a quiet
-- fleet does not gather all of them at one server.
local function most_idle()
    if conversation ~= '' and not home_worker then
        local found = redis.call('ZREVRANGE', idle, 0, 15, 'WITHSCORES')
        local at = tonumber(string.sub(conversation, 1, 6), 16) % math.max(1, #found / 2) * 2
        return found[at + 1], found[at + 2]
    end
    if not home_worker then return unpack(redis.call('ZREVRANGE', idle, 0, 0, 'WITHSCORES')) end
    for _, member in ipairs({'+' .. home_lease_s .. ' ' .. home_worker, home_worker}) do
        local count = redis.call('ZSCORE', idle, member)
        if count then return member, count end
    end
end
-- Publishes to the worker with most idle slots, or that of the home, what message(member) returns,
-- and takes one of its slots. Returns its member of idle; nil: there is none, or message returned
-- nil.
local function publish(message)
    while true do
        local member, count = most_idle()
        local text, worker = nil, nil
        if member then
            worker = string.match(member, '^%+%S+ (.+)$') or member
            text = message(member)
        end
        if not text then return nil end
        local is_there = redis.call('PUBLISH', wakes(worker), text) > 0
        if is_there and tonumber(count) > 1 then redis.call('ZINCRBY', idle, -1, member)
        else redis.call('ZREM', idle, member) end
        if is_there then return member end
    end
end
local depth = redis.call('ZCARD', backlog)
if assignment ~= '' and depth == 0 then
    local member = publish(function(to)
        if string.byte(to) ~= 43 then return nil end
        return queue .. ' ' .. exact(now) .. ' ' .. assignment
    end)
    if member then
        local lease_s, worker = string.match(member, '^%+(%S+) (.+)$')
        local attempt = string.match(assignment, '^%S+ (%S+)')
        redis.call('HSET', facts, id, string.sub(ARGV[4], 1, -2) .. ',"start":' .. exact(now)
                   .. ',"at":' .. exact(now) .. '}')
        redis.call('ZADD', leases, exact(now + lease_s), id)
        redis.call('HSET', holders, id, attempt .. ' ' .. worker)
        return {1}
    end
end
-- include shared/arrival.lua
local refused = refusal()
if refused then return refused end
if is_later then
    count(job, 1, scheduled)
    note(id, job)
    redis.call('ZADD', delayed, exact(job.due), id)
    redis.call('ZADD', queues, exact(now), queue)
    return {0}
end
job.due, job.flow, job.share = nil, nil, nil
local why = redis.call('GET', paused)
job.told = home_worker and not why and 1 or nil
if is_behind then
    job.behind = true
    note_behind(behind, conversation)
end
arrive(id, job, depth, flow, cost_s)
local position = redis.call('ZRANK', backlog, id) + 1
if why then return {position, 0, 0, why} end
local function tell() return publish(function() return queue end) end
local is_told = home_worker
    and (tell() or redis.call('PUBLISH', wakes(home_worker), queue) > 0)
if not is_told and redis.call('LLEN', tickets) <= depth and not tell() then
    redis.call('LPUSH', tickets, ARGV[15])
end
return {position}
