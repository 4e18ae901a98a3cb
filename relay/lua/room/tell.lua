#!lua flags=allow-oom
-- KEYS room; ARGV state ttl_ms
-- Says how full Redis is, also where it is too full for a plain command. Returns 1.
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
