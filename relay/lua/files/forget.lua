#!lua flags=allow-oom
-- KEYS stored sizes sums; ARGV name
-- Removes an object whose bytes are deleted. Returns 1.
-- include shared/sizes.lua
local stored, sizes, sums = unpack(KEYS)
redis.call('ZREM', stored, ARGV[1])
if redis.call('HEXISTS', sizes, ARGV[1]) == 1 then resize(sizes, sums, ARGV[1], '', 0) end
return 1
