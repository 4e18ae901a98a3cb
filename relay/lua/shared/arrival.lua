-- Names the next ARGV of expect and enqueue: id facts cost_s flow tenant, then the bounds: jobs
-- tokens tenant_jobs tenant_tokens ('': none) share. The script includes shared/queue.lua before it,
-- and has read depth, the number of waiting jobs. Defines refusal(), which returns {-1 to -6 for the
-- exceeded bound, its present value, its limit} or nil; and is_later, whether the job may not wait
-- for a worker yet: as many may be scheduled as may wait.
-- Of what it holds and what is free, a tenant may hold the share. With a share below 1 its first job
-- is taken even if the queue is full: so a tenant always gets in, and a queue holds at most one job
-- of each tenant more than its bound (docs/adr/0058).
local job, cost_s, flow, tenant = cjson.decode(ARGV[4]), unpack(ARGV, 5, 7)
local is_later = job.due and job.due > now
local function refusal()
    if depth == 0 and not is_later then return nil end
    local tokens, own_jobs, own_tokens = unpack(redis.call(
        'HMGET', is_later and scheduled or load, 'tokens', 'jobs ' .. tenant, 'tokens ' .. tenant))
    local held = {is_later and redis.call('ZCARD', delayed) or depth, tonumber(tokens or 0)}
    local own = {tonumber(own_jobs or 0), tonumber(own_tokens or 0)}
    local adds, share = {1, job.tokens}, tonumber(ARGV[12])
    local is_first = share < 1 and own[1] == 0
    for i = 1, 2 do
        local bound = not is_first and tonumber(ARGV[7 + i])
        if bound and held[i] + adds[i] > bound then return {-i, held[i], bound} end
    end
    for i = 1, 2 do
        local bound = tonumber(ARGV[9 + i])
        if bound and own[i] + adds[i] > bound then return {-2 - i, own[i], bound} end
    end
    if share == 1 or is_first then return nil end
    for i = 1, 2 do
        local bound = tonumber(ARGV[7 + i])
        local most = bound and math.floor(share * (bound - held[i] + own[i]))
        if most and own[i] + adds[i] > most then return {-4 - i, own[i], most} end
    end
end
