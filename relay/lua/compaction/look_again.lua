#!lua flags=allow-oom
-- KEYS uncompacted; ARGV (unix seconds, id)...
-- Has jobs looked at again then; also in a full Redis, where compaction makes room. Returns nothing.
redis.call('ZADD', KEYS[1], unpack(ARGV))
