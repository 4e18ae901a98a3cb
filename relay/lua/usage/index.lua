#!lua flags=allow-oom
-- KEYS tenants; ARGV tenant ttl_s
-- Notes that a tenant used something on a day, also in a full Redis: what is not in the ledger keeps
-- jobs in it. Returns 1.
redis.call('SADD', KEYS[1], ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
