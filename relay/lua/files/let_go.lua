#!lua flags=allow-oom
-- KEYS stored held; ARGV now name...
-- Has objects of the storage deleted now, also those that batches read. Returns 1.
local stored, held = unpack(KEYS)
for i = 2, #ARGV do
    redis.call('ZREM', held, ARGV[i])
    redis.call('ZADD', stored, 'XX', 'LT', ARGV[1], ARGV[i])
end
return 1
