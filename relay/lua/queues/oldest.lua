#!lua flags=no-writes,allow-oom
-- KEYS backlog arrivals; ARGV limit
-- Returns the id of the waiting job that was enqueued first, or false. Looks at up to limit members
-- of arrivals: a worker of an older version leaves those there that no longer wait. Jobs that such
-- a version enqueued are not in arrivals: then the head of the backlog is returned.
local backlog, arrivals = unpack(KEYS)
for _, id in ipairs(redis.call('ZRANGE', arrivals, 0, ARGV[1] - 1)) do
    if redis.call('ZSCORE', backlog, id) then return id end
end
return redis.call('ZRANGE', backlog, 0, 0)[1] or false
