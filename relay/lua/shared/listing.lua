-- Defines list(index, id, keep_s): adds an id to a sorted set by creation time, which keeps the
-- newest 100,000 and expires in keep_s seconds or later.
-- include shared/time.lua
local function list(index, id, keep_s)
    redis.call('ZADD', index, exact(now), id)
    redis.call('ZREMRANGEBYRANK', index, 0, -100001)
    if redis.call('TTL', index) < keep_s then
        redis.call('EXPIRE', index, string.format('%d', keep_s))
    end
end
