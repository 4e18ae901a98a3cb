#!lua flags=allow-oom
-- KEYS as shared/queue.lua, then drained (the counter of this minute) homes addresses behind
-- ARGV as shared/queue.lua, then worker version lease_s look_ahead batch (1 or 0)
--   cold (1, 0 or 'drains') patience_s filter (JSON) idle_slots idle_s idle_member
--   ended holder ('': no job has ended) conversation_patience_s turns_pattern record_pattern
--   wake_pattern
-- Keys beyond KEYS: the lists of messages of conversations, and the records of these.
-- Leases the job that should run next (relay/order.py). Returns {id, attempt, now, model or '',
-- context length or ''}, for a message of a conversation also its conversation and the id of its
-- home or ''; false: no waiting job fits, or, if messages of conversations wait for another address
-- or for an earlier message, {'', seconds until one may be claimed here}. A job of a newer version
-- keeps its place. For a model whose last job failed, jobs at their first attempt go first, because
-- retried jobs may have caused the failure. If no job waits at all, the worker's idle slots, if it has
-- more than 0, are recorded for idle_s seconds. Of a paused queue nothing is leased, and no idle
-- slot recorded, so that nothing is assigned either (docs/adr/0051). Jobs of tenants that are held
-- are delayed for a while (docs/adr/0064).
-- include shared/release.lua
-- include shared/home.lua
-- include shared/turns.lua
local homes, addresses, behind = unpack(KEYS, 17)
local worker, lease_s = ARGV[3], ARGV[5]
local idle_slots, idle_s, member = tonumber(ARGV[11]), ARGV[12], ARGV[13]
if ARGV[14] ~= '' then release(ARGV[14], ARGV[15], KEYS[16]) end
revive(16)
-- EXISTS counts a key that is named twice twice: 1 says that jobs wait and nothing is paused, 4 more
-- that messages wait behind, and costs no more than the question whether any waits.
local state = redis.call('EXISTS', backlog, paused, paused, behind, behind, behind, behind)
local is_any_behind = state >= 4
state = state % 4
if state ~= 1 then
    if state == 0 and idle_slots > 0 then
        if redis.call('ZADD', idle, idle_slots, member) == 1 then
            redis.call('EXPIRE', idle, idle_s)
            redis.call('ZADD', queues, exact(now), queue)
        end
    end
    return false
end
local version, look_ahead, patience = tonumber(ARGV[4]), tonumber(ARGV[6]), tonumber(ARGV[9])
local batch, cold, drains = ARGV[7] == '1', ARGV[8] == '1', ARGV[8] == 'drains'
local filter = cjson.decode(ARGV[10])
local most_lines, most_left, look_again, again_s = 256, 256, 1, nil
local most_moved, most_seen_behind, moved = 100, 32, 0
local here, left_patience = filter.here and {}, tonumber(ARGV[16])
for _, address in ipairs(filter.here or {}) do here[address] = true end
local turns_of, record_of, wakes = keys_like(ARGV[17]), keys_like(ARGV[18]), keys_like(ARGV[19])
local function set_of(list)
    local set = {}
    for _, name in ipairs(list) do set[name] = true end
    return set
end
local warm, resting, failing = set_of(filter.warm), set_of(filter.resting), set_of(filter.failing)
local held = set_of(filter.held)
local only, full = {}, {}
for model, names in pairs(filter.only) do only[model] = set_of(names) end

-- The variant of a job's model that a worker loads: spelled as the job has it, and without :latest
-- (the rules of contract/model_names.py).
local function spelled(job) return filter.contexts and variant(job) or job.model end
local function base(model) return (string.gsub(model, ':latest$', '')) end
local function loaded(job)
    local ctx = filter.contexts and job.ctx
    return base(job.model) .. (ctx and '#ctx=' .. ctx or '')
end
-- Jobs that other workers hold run at the same server: their models stay loaded as they are.
if filter.one_runner then
    for _, leased in ipairs(redis.call('ZRANGE', leases, 0, most_lines - 1)) do
        local its = known(leased)
        if its and its.model then
            local names = only[base(its.model)] or {}
            names[loaded(its)] = true
            only[base(its.model)] = names
        end
    end
end
local is_choosy, is_restricted = filter.choosy, next(resting) or next(only)
-- Whether an endpoint may have the job now. A job that waits until its model is loaded another way
-- is overtaken by jobs of what is loaded for no longer than the patience; then these wait, too.
local function may_run(id, job)
    if not (is_restricted and job.model) then return true end
    local name, model = loaded(job), base(job.model)
    if resting[name] then return false end
    if not only[model] then return true end
    if only[model][name] then return not full[model] end
    if not job.passed then
        job.passed = now
        note(id, job)
    end
    if now - job.passed >= patience then full[model] = true end
    return false
end
local next_of = {}
local function next_in(conversation)
    local id = next_of[conversation] or live_turns(turns_of(conversation), record_of, 1)[1]
    next_of[conversation] = id
    return id
end
-- A message that waits for an earlier one of its conversation waits behind all other jobs, until it
-- is the next: however many of them a tenant has, no claim passes over them again and again, and the
-- jobs of others are found. Most are put there as they arrive.
local function put_behind(id, job)
    if job.behind or moved == most_moved then return false end
    job.behind, moved = true, moved + 1
    note(id, job)
    wait(id, job)
    note_behind(behind, job.conv)
    return true
end
-- However many jobs of a tenant are held, no claim passes over them again and again.
local function hold(id, job)
    if moved == most_moved then return false end
    moved = moved + 1
    leave(id, job)
    if redis.call('ZADD', delayed, exact(now + filter.held_s), id) == 1 then
        count(job, 1, scheduled)
    end
    return true
end
-- The next messages of conversations, those first that were looked at longest ago, have their place
-- again.
local function bring_back()
    local conversations = redis.pcall('ZRANGE', behind, 0, most_seen_behind - 1)
    if conversations.err then redis.call('DEL', behind) end  -- damaged
    for _, conversation in ipairs(conversations) do
        local live = live_turns(turns_of(conversation), record_of, 2)
        local id = live[1]
        local job = id and redis.call('ZSCORE', backlog, id) and known(id)
        if job and job.behind then
            job.behind = nil
            note(id, job)
            wait(id, job)
        end
        if live[2] then redis.call('ZADD', behind, exact(now), conversation)
        else redis.call('ZREM', behind, conversation) end
    end
end
-- Seconds for which a message of a conversation is left to the address of its home, or to earlier
-- messages; 0: it may run here. The first time its home's worker is told.
local function left_for(id, job)
    if not job.conv then return 0 end
    local at = job.in_turn and next_in(job.conv)
    if at and at ~= id then return look_again, put_behind(id, job) end
    if not here then return 0 end
    local home, home_worker = home_of(homes, addresses, job.conv)
    if not home_worker or here[home] then return 0 end
    if not job.away then
        job.away = now
        note(id, job)
        if not job.told and home_worker ~= worker then
            redis.call('PUBLISH', wakes(home_worker), queue)
        end
    end
    return math.max(0, job.away + left_patience - now)
end
-- Messages that are left to others, and jobs that are held, count for nothing in look_ahead, up to
-- most_left of them, beside those that are put behind or delayed, which are no longer where they were
-- found.
local function first(set, least)
    local from, seen = 0, 0
    while seen <= most_left do
        local found = redis.pcall('ZRANGE', set, from, from + look_ahead - 1, 'WITHSCORES')
        if found.err then return nil end  -- damaged: the maintainer makes it anew
        local was_left, gone = false, 0
        for i = 1, #found, 2 do
            local id, job = found[i], known(found[i])
            if not job or set ~= backlog and not redis.call('ZSCORE', backlog, id) then
                gone = gone + redis.call('ZREM', set, id)
            elseif held[job.tenant] then
                was_left = true
                if hold(id, job) then gone = gone + 1 end
            elseif job.v <= version and (batch or not job.batch)
                    and job.attempt <= (least or job.attempt) and may_run(id, job) then
                local left_s, is_moved = left_for(id, job)
                if left_s == 0 then return id, job, tonumber(found[i + 1]) end
                was_left, again_s = true, math.min(again_s or left_s, left_s)
                if is_moved then gone = gone + 1 end
            end
        end
        if not was_left or #found < 2 * look_ahead then return nil end
        from, seen = from + look_ahead - gone, seen + look_ahead - gone
    end
end
local function nothing() return again_s and {'', exact(again_s)} or false end
local function first_of(names)
    local id, job, score
    for _, name in ipairs(names) do
        local other, its, at = first(line(name))
        if other and (not id or at < score) then id, job, score = other, its, at end
    end
    return id, job
end
if is_any_behind then bring_back() end
local id, job = first(batch and backlog or urgent)
if not id and is_restricted then
    id, job = first_of(redis.call('ZRANGE', lines, 0, most_lines - 1))
end
if not id then return nothing() end
if is_choosy and job.model and not warm[spelled(job)] then
    local other, its = first_of(filter.warm)
    local passes = other and its.slack < job.slack + 1 and now - (job.passed or now) < patience
    if not (cold or other) or drains and not passes then return nothing() end
    if (cold or drains) and passes and not job.passed then
        job.passed = now
        note(id, job)
    end
    if passes or not cold then id, job = other, its end
end
if job.model and failing[loaded(job)] and job.attempt > 1 then
    local other, its = first(line(variant(job)), 1)
    if other then id, job = other, its end
end
leave(id, job)
if job.behind then
    job.behind = nil
    note(id, job)
end
redis.call('ZADD', leases, exact(now + lease_s), id)
redis.call('HSET', holders, id, job.attempt .. ' ' .. worker)
local reached = redis.call('HGET', clocks, 'now')
if not reached or sane(reached, now + most_ahead_s) < job.start then
    redis.call('HSET', clocks, 'now', exact(job.start))
    if not reached then redis.call('EXPIRE', clocks, 86400) end
end
local claimed = {id, job.attempt, exact(now), job.model or '', job.ctx or ''}
if job.conv then
    claimed[6], claimed[7] = job.conv, redis.call('HGET', homes, job.conv) or ''
end
return claimed
