#!lua flags=allow-oom
-- KEYS report roster queues; ARGV worker json ttl_s now member_s queue...
-- Writes a worker's report, which lives for ttl_s seconds, and notes its queues. A full Redis takes
-- it, too, or a worker that starts there would be missing. Returns 1.
local report, roster, queues = unpack(KEYS)
local worker, json, ttl_s, now, member_s = unpack(ARGV, 1, 5)
redis.call('SET', report, json, 'EX', ttl_s)
redis.call('ZADD', roster, string.format('%.3f', now + member_s), worker)
redis.call('ZREMRANGEBYSCORE', roster, '-inf', now)
redis.call('EXPIRE', roster, member_s)
for i = 6, #ARGV do redis.call('ZADD', queues, now, ARGV[i]) end
return 1
