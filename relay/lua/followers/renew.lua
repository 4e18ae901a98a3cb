#!lua flags=allow-oom
-- KEYS followed audience...; ARGV process lease_s job...
-- Renews a process's leases. Returns the jobs for which it is not registered.
-- include shared/time.lua
local followed, process, lease_s = KEYS[1], ARGV[1], ARGV[2]
local lost = {}
for i = 2, #KEYS do
    local audience, job = KEYS[i], ARGV[i + 1]
    local is_there = redis.pcall('ZSCORE', audience, process)
    if type(is_there) == 'table' then  -- damaged: the others' are renewed
    elseif is_there then
        redis.call('ZADD', audience, exact(now + lease_s), process)
        redis.call('EXPIRE', audience, math.ceil(lease_s * 10))
        redis.call('ZADD', followed, exact(now + lease_s), job)
    else
        lost[#lost + 1] = job
    end
end
return lost
