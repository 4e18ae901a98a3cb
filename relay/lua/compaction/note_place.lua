#!lua flags=allow-oom
-- KEYS compacted; ARGV place
-- Keeps how far jobs have been looked at, also in a full Redis. Returns nothing.
redis.call('SET', KEYS[1], ARGV[1])
