-- Defines create_file(keys, ...): writes a file's record unless it exists, and counts its object with
-- counted_bytes. keys: file index stored sizes sums. Returns its creation time.
-- include shared/listing.lua
-- include shared/sizes.lua
local function create_file(keys, id, name, json, ttl_s, counted_bytes)
    local file, index, stored, sizes, sums = unpack(keys)
    local created_at = redis.call('HGET', file, 'created_at')
    if created_at then return created_at end
    redis.call('HSET', file, 'created_at', exact(now), 'expires_at', exact(now + ttl_s),
               'json', json)
    redis.call('EXPIRE', file, string.format('%d', math.ceil(ttl_s)))
    redis.call('ZADD', stored, exact(now + ttl_s), name)
    resize(sizes, sums, name, cjson.decode(json).tenant, counted_bytes)
    list(index, id, math.ceil(ttl_s) + 86400)
    return exact(now)
end
