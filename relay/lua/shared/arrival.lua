-- Names the next ARGV of expect and enqueue: id facts cost_s flow tenant, then the bounds: jobs
-- tokens bytes tenant_jobs tenant_tokens tenant_bytes ('': none) share. The script includes
-- shared/queue.lua before it, and has read depth, the number of waiting jobs. Defines refusal(),
-- which returns {-1 to -9 for the exceeded bound, its present value, its limit} or nil; and is_later,
-- whether the job may not wait for a worker yet: as many may be scheduled as may wait. Bytes are
-- those of all jobs that no worker holds: waiting, scheduled, or between two attempts. A request
-- that is larger than the bound is taken where nothing else is kept.
-- Of what it holds and what is free, a tenant may hold the share. With a share below 1 its first job
-- is taken even if the queue is full: so a tenant always gets in, and a queue holds at most one job
-- of each tenant more than its bound (docs/adr/0058).
local job, cost_s, flow, tenant = cjson.decode(ARGV[4]), unpack(ARGV, 5, 7)
local is_later = job.due and job.due > now
local function refusal()
    local bytes, is_alone = job.bytes or 0, depth == 0 and not is_later
    if is_alone and bytes <= 65536 then return nil end
    local function read(counts)
        local found = redis.call('HMGET', counts, 'tokens', 'bytes', 'jobs ' .. tenant,
                                 'tokens ' .. tenant, 'bytes ' .. tenant)
        for i = 1, 5 do found[i] = sane(found[i], most_counted) end
        return found
    end
    -- Without a waiting job, what is in load is void.
    local waits, later = depth > 0 and read(load) or {0, 0, 0, 0, 0}, read(scheduled)
    local there = is_later and later or waits
    local held = {is_later and redis.call('ZCARD', delayed) or depth, there[1], waits[2] + later[2]}
    local own = {there[3], there[4], waits[5] + later[5]}
    local adds, share = {1, job.tokens, bytes}, tonumber(ARGV[14])
    local is_first = share < 1 and own[1] == 0
    local function exceeds(i, has, bound)
        return bound and has + adds[i] > bound and (i < 3 or has > 0)
    end
    for i = is_alone and 3 or 1, 3 do
        local bound = not is_first and tonumber(ARGV[7 + i])
        if exceeds(i, held[i], bound) then return {-i, held[i], bound} end
    end
    for i = is_alone and 3 or 1, 3 do
        local bound = tonumber(ARGV[10 + i])
        if exceeds(i, own[i], bound) then return {-3 - i, own[i], bound} end
    end
    if share == 1 or is_first then return nil end
    for i = is_alone and 3 or 1, 3 do
        local bound = tonumber(ARGV[7 + i])
        local most = bound and math.floor(share * (bound - held[i] + own[i]))
        if exceeds(i, own[i], most) then return {-6 - i, own[i], most} end
    end
end
