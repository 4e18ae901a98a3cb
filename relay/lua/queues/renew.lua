#!lua flags=allow-oom
-- KEYS leases holders record...; ARGV worker lease_s (id attempt)...
-- Renews a worker's leases. Returns now, then the ids whose lease the worker does not hold, and
-- those of cancelled jobs, because the process that cancelled may have died before it notified the
-- worker.
-- include shared/time.lua
local leases, holders = KEYS[1], KEYS[2]
local worker, lease_s = ARGV[1], ARGV[2]
local lost = {exact(now)}
for i = 3, #ARGV, 2 do
    local id, record = ARGV[i], KEYS[(i + 3) / 2]
    local is_held = redis.call('HGET', holders, id) == ARGV[i + 1] .. ' ' .. worker
    local status = redis.pcall('HGET', record, 'status')  -- a table: the record is damaged
    if is_held and status ~= 'cancelled' and type(status) ~= 'table' then
        redis.call('ZADD', leases, exact(now + lease_s), id)
    else
        lost[#lost + 1] = id
    end
end
return lost
