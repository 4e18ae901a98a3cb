#!lua flags=no-writes,allow-oom
-- KEYS and ARGV as shared/queue.lua and shared/arrival.lua; then KEYS drained counters.
-- Returns {what enqueue would return now, the values of the counters}.
-- include shared/arrival.lua
local answer = refusal() or {redis.call('ZCOUNT', backlog, '-inf', exact(start() + job.slack)) + 1}
return {answer, redis.call('MGET', unpack(KEYS, 14))}
