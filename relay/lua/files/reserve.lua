#!lua
-- KEYS stored sizes sums; ARGV name keep_s tenant size_bytes tenant_limit limit share free_bytes ('':
--   not known) tenant_number
-- Counts an object that is being written with this size, and keeps it for keep_s seconds, unless the
-- tenant's objects or all of them would have more bytes than their limit, or the tenant's more than
-- the share of what they have and what is free; a tenant without an object gets one in. Returns {1};
-- or {0: the tenant's, -1: all, -2: the share, the bytes without this object, the limit}; {-3, the
-- tenant's objects, tenant_number}: it has as many as it may, however small.
-- include shared/time.lua
-- include shared/sizes.lua
local stored, sizes, sums = unpack(KEYS)
local name, keep_s, tenant, size_bytes = unpack(ARGV, 1, 4)
local before = redis.call('HGET', sizes, name)
local counted = tonumber(string.match(before or '', '^%d+') or 0)
local number, most_objects = number_of(sums, tenant), tonumber(ARGV[9])
if not before and number >= most_objects then return {-3, number, most_objects} end
local own, all = bytes_of(sums, tenant)
own, all = own - counted, all - counted
local most, limit, share = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
if own + size_bytes > most then return {0, own, most} end
if all + size_bytes > limit then return {-1, all, limit} end
if share < 1 and own > 0 then
    local free = math.min(limit - all, tonumber(ARGV[8]) or limit)
    most = math.floor(share * (own + free))
    if own + size_bytes > most then return {-2, own, most} end
end
resize(sizes, sums, name, tenant, tonumber(size_bytes))
redis.call('ZADD', stored, exact(now + keep_s), name)
return {1}
