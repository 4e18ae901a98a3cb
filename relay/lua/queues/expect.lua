#!lua flags=no-writes,allow-oom
-- KEYS and ARGV as shared/queue.lua and shared/arrival.lua. Returns what enqueue would return now.
-- include shared/queue.lua
local depth = redis.call('ZCARD', backlog)
if depth == 0 then return {1} end
-- include shared/arrival.lua
return refusal() or {redis.call('ZCOUNT', backlog, '-inf', exact(start() + job.slack)) + 1}
