#!lua flags=allow-oom
-- KEYS blocked [children of a parent]; ARGV at id...
-- Has jobs that still wait for others looked at then (unix seconds), and takes them from the
-- children of the parent. Returns 1.
-- A full Redis runs it, too: what these wait for may not be removed before.
local blocked, children = unpack(KEYS)
for i = 2, #ARGV do redis.call('ZADD', blocked, 'XX', ARGV[1], ARGV[i]) end
if children then redis.call('SREM', children, unpack(ARGV, 2)) end
return 1
