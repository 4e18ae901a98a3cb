#!lua flags=allow-oom
-- KEYS backlog arrivals; ARGV limit
-- Returns the id of the waiting job that was enqueued first, or false. Drops up to limit members
-- of arrivals that no longer wait: a worker of an older version does not remove them. Jobs that
-- such a version enqueued are not in arrivals: then the head of the backlog is returned.
local backlog, arrivals = unpack(KEYS)
for _ = 1, tonumber(ARGV[1]) do
    local id = redis.call('ZRANGE', arrivals, 0, 0)[1]
    if not id then break end
    if redis.call('ZSCORE', backlog, id) then return id end
    redis.call('ZREM', arrivals, id)
end
return redis.call('ZRANGE', backlog, 0, 0)[1] or false
