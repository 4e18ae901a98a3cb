-- Defines create_file(...): writes a file's record unless it exists. Returns its creation time.
-- include shared/listing.lua
local function create_file(file, index, stored, id, name, json, ttl_s)
    local created_at = redis.call('HGET', file, 'created_at')
    if created_at then return created_at end
    redis.call('HSET', file, 'created_at', exact(now), 'expires_at', exact(now + ttl_s),
               'json', json)
    redis.call('EXPIRE', file, string.format('%d', math.ceil(ttl_s)))
    redis.call('ZADD', stored, exact(now + ttl_s), name)
    list(index, id, math.ceil(ttl_s) + 86400)
    return exact(now)
end
