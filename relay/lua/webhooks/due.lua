#!lua flags=no-writes,allow-oom
-- KEYS due; ARGV lane_pattern most_lanes most
-- Keys beyond KEYS: in_lane(lane), the receivers of a lane.
-- Returns {seconds until a lane is due that is not yet ('': none)}, then of each lane that is due, the
-- longest waiting first, at most so many: {lane, receivers that are due, at most so many}.
-- include shared/time.lua
-- include shared/key_pattern.lua
local in_lane = keys_like(ARGV[1])
local at = exact(now)
local later = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. at, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
local found = {later[2] and exact(later[2] - now) or ''}
for _, lane in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', at, 'LIMIT', 0, ARGV[2])) do
    -- A damaged lane keeps nobody else's waiting.
    local receivers =
        redis.pcall('ZRANGEBYSCORE', in_lane(lane), '-inf', at, 'LIMIT', 0, ARGV[3])
    if not receivers.err then found[#found + 1] = {lane, receivers} end
end
return found
