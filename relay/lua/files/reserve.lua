#!lua
-- KEYS stored sizes sums; ARGV name keep_s tenant size_bytes tenant_limit limit
-- Counts an object that is being written with this size, and keeps it for keep_s seconds, unless the
-- tenant's objects or all of them would have more bytes than their limit. Returns {1}; or {0: the
-- tenant's, -1: all, the bytes without this object}.
-- include shared/time.lua
-- include shared/sizes.lua
local stored, sizes, sums = unpack(KEYS)
local name, keep_s, tenant, size_bytes = unpack(ARGV, 1, 4)
local counted = tonumber(string.match(redis.call('HGET', sizes, name) or '', '^%d+') or 0)
local own, all = bytes_of(sums, tenant)
own, all = own - counted, all - counted
if own + size_bytes > tonumber(ARGV[5]) then return {0, own} end
if all + size_bytes > tonumber(ARGV[6]) then return {-1, all} end
resize(sizes, sums, name, tenant, tonumber(size_bytes))
redis.call('ZADD', stored, exact(now + keep_s), name)
return {1}
