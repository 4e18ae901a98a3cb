#!lua flags=allow-oom
-- KEYS messages counts; ARGV limit ttl_s queue reason size_bytes data job_id
-- Stores an unreadable message, of which the newest limit are kept, and counts it. Returns 1.
local messages, counts = unpack(KEYS)
local limit, ttl_s, queue, reason, size_bytes, data, job_id = unpack(ARGV)
redis.call('XADD', messages, 'MAXLEN', limit, '*', 'queue', queue, 'reason', reason,
           'size_bytes', size_bytes, 'data', data, 'job_id', job_id)
redis.call('HINCRBY', counts, queue, 1)
redis.call('EXPIRE', messages, ttl_s)
redis.call('EXPIRE', counts, ttl_s)
return 1
