-- Names the next ARGV of expect and enqueue: id facts cost_s flow tenant, then the bounds: jobs
-- tokens tenant_jobs tenant_tokens ('': none). The script includes shared/queue.lua before it, and
-- has read depth, the number of waiting jobs. Defines refusal(), which returns {-1 to -4 for the
-- exceeded bound, its present value, its limit} or nil; and is_later, whether the job may not wait
-- for a worker yet: as many may be scheduled as may wait.
local job, cost_s, flow, tenant = cjson.decode(ARGV[4]), unpack(ARGV, 5, 7)
local is_later = job.due and job.due > now
local function refusal()
    if depth == 0 and not is_later then return nil end
    local tokens, own_jobs, own_tokens = unpack(redis.call(
        'HMGET', is_later and scheduled or load, 'tokens', 'jobs ' .. tenant, 'tokens ' .. tenant))
    local has = {is_later and redis.call('ZCARD', delayed) or depth, tokens, own_jobs, own_tokens}
    local adds = {1, job.tokens, 1, job.tokens}
    for i = 1, 4 do
        local bound, have = tonumber(ARGV[7 + i]), tonumber(has[i] or 0)
        if bound and have + adds[i] > bound then return {-i, have, bound} end
    end
end
