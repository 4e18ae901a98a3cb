#!lua flags=no-writes,allow-oom
-- KEYS and ARGV as shared/queue.lua and shared/arrival.lua. Returns what enqueue would return now.
-- include shared/queue.lua
local depth = redis.call('ZCARD', backlog)
-- include shared/arrival.lua
local refused = refusal()
if refused then return refused end
if is_later then return {0} end
local start = virtual_start(depth, flow)
return {redis.call('ZCOUNT', backlog, '-inf', exact(start + job.slack)) + 1}
