#!lua flags=allow-oom
-- KEYS reserving; ARGV at member...
-- Has reservations checked again then (unix seconds), if they are still there. A full Redis runs it,
-- too: the maintainer does, whose pass makes room. Returns 1.
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], 'XX', ARGV[1], ARGV[i]) end
return 1
