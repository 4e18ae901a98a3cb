#!lua flags=allow-oom
-- KEYS state in_lane due; ARGV lane name
-- Has what waits for a receiver tried now, and its pauses begin anew. Returns whether anything waits.
-- include shared/webhook.lua
local state, in_lane, due = unpack(KEYS)
local lane, name = unpack(ARGV)
if not redis.call('ZSCORE', in_lane, name) then return 0 end
redis.call('HDEL', state, 'failures')
schedule(due, in_lane, lane, name, exact(now))
return 1
