#!lua flags=allow-oom
-- KEYS as shared/start.lua, then homes homes_used
-- ARGV as shared/start.lua, then conversation home ttl_s most
-- Starts a claimed message, and remembers for ttl_s seconds at which address its conversation is,
-- for the last `most` conversations that were used. Returns what start returns.
-- include shared/start.lua
local homes, used = unpack(KEYS, 3)
local conversation, home, ttl_s, most = unpack(ARGV, 6)
local begun = start()
if begun then
    redis.call('HSET', homes, conversation, home)
    if redis.call('ZADD', used, exact(now), conversation) == 1 then
        local over = redis.call('ZCARD', used) - most
        local late = redis.call('ZCOUNT', used, '-inf', exact(now - ttl_s))
        for _ = 1, math.min(math.max(over, late), 100) do
            local oldest = redis.call('ZPOPMIN', used)
            redis.call('HDEL', homes, oldest[1])
        end
    end
    local keep_s = string.format('%d', math.ceil(ttl_s))
    redis.call('EXPIRE', homes, keep_s)
    redis.call('EXPIRE', used, keep_s)
end
return begun
