#!lua flags=allow-oom
-- KEYS as shared/start.lua, then homes homes_used
-- ARGV as shared/start.lua, then conversation home ttl_s most share default own_pattern
-- Keys beyond KEYS: the list of the tenant's conversations.
-- Starts a claimed message, and remembers for ttl_s seconds at which address its conversation is,
-- for the last `most` conversations that were used. Of what it has and what is free a tenant has the
-- share, unless it is the tenant default: of more its own oldest are forgotten. Returns what start
-- returns.
-- include shared/start.lua
-- include shared/key_pattern.lua
local homes, used = unpack(KEYS, 3)
local conversation, home, ttl_s, most, share, default, own_pattern = unpack(ARGV, 6)
local keep_s = string.format('%d', math.ceil(ttl_s))
local function tenant_in(record)
    for i = 1, #record, 2 do
        if record[i] == 'tenant' then return record[i + 1] end
    end
    return default
end
-- Only as a conversation is new: one that goes on costs nothing more.
local function keep_to_the_share(tenant, total)
    if tonumber(share) == 1 or tenant == default then return end
    local own = keys_like(own_pattern)(tenant)
    local count = redis.pcall('RPUSH', own, conversation)
    if type(count) ~= 'number' then  -- damaged: it counts anew
        redis.call('DEL', own)
        count = redis.call('RPUSH', own, conversation)
    end
    redis.call('EXPIRE', own, keep_s + 86400)
    local most_own = math.max(1, math.floor(share * (most - total + count)))
    for _ = 1, math.min(count - most_own, 100) do
        local oldest = redis.call('LPOP', own)
        redis.call('ZREM', used, oldest)
        redis.call('HDEL', homes, oldest)
    end
end
local begun = start()
if begun then
    redis.call('HSET', homes, conversation, home)
    if redis.call('ZADD', used, exact(now), conversation) == 1 then
        local total = redis.call('ZCARD', used)
        keep_to_the_share(tenant_in(begun[2]), total)
        local over = total - most
        local late = redis.call('ZCOUNT', used, '-inf', exact(now - ttl_s))
        for _ = 1, math.min(math.max(over, late), 100) do
            local oldest = redis.call('ZPOPMIN', used)
            redis.call('HDEL', homes, oldest[1])
        end
    end
    redis.call('EXPIRE', homes, keep_s)
    redis.call('EXPIRE', used, keep_s)
end
return begun
