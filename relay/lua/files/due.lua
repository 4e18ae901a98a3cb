#!lua flags=allow-oom
-- KEYS stored held; ARGV limit claim_s
-- Returns the names of objects to delete now. They are not returned again for claim_s seconds.
-- include shared/time.lua
local stored, held = unpack(KEYS)
redis.call('ZREMRANGEBYSCORE', held, '-inf', exact(now))
local due = redis.call('ZRANGEBYSCORE', stored, '-inf', exact(now), 'LIMIT', 0, ARGV[1])
local free = {}
for _, name in ipairs(due) do
    local held_until = redis.call('ZSCORE', held, name)
    redis.call('ZADD', stored, held_until or exact(now + ARGV[2]), name)
    if not held_until then free[#free + 1] = name end
end
return free
