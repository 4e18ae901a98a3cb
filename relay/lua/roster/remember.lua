#!lua flags=allow-oom
-- KEYS backend known; ARGV field json keep_s now most (queue slots)...
-- Remembers a backend (in a field of its hash) and its queues for keep_s seconds after now; of all
-- queues at most so many. Returns 1.
local backend, known = unpack(KEYS)
local field, json, keep_s, now, most = unpack(ARGV, 1, 5)
redis.call('HSET', backend, field, json, unpack(ARGV, 6))
redis.call('EXPIRE', backend, keep_s)
for i = 6, #ARGV, 2 do redis.call('ZADD', known, now, ARGV[i]) end
redis.call('ZREMRANGEBYSCORE', known, '-inf', string.format('%.3f', now - keep_s))
redis.call('ZREMRANGEBYRANK', known, 0, -most - 1)
redis.call('EXPIRE', known, keep_s)
return 1
