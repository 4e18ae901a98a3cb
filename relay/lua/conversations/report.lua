#!lua flags=allow-oom
-- KEYS addresses; ARGV worker lease_s ttl_s (address works (1 or 0))...
-- Notes for ttl_s seconds which addresses a worker serves, and forgets those that do not work or
-- were not reported in time. Returns the addresses that another worker serves, too.
-- include shared/time.lua
local addresses = KEYS[1]
local worker, lease_s, ttl_s = unpack(ARGV, 1, 3)
local shared = {}
local entries = redis.call('HGETALL', addresses)
local holder_of = {}
for i = 1, #entries, 2 do
    local expires_at, holder = string.match(entries[i + 1], '^(%S+) %S+ (.+)$')
    -- What is no such entry is as good as none.
    if (tonumber(expires_at) or 0) < now then redis.call('HDEL', addresses, entries[i])
    else holder_of[entries[i]] = holder end
end
for i = 4, #ARGV, 2 do
    local address, works = ARGV[i], ARGV[i + 1] == '1'
    local holder = holder_of[address]
    if holder and holder ~= worker then shared[#shared + 1] = address end
    if works then
        redis.call('HSET', addresses, address, exact(now + ttl_s) .. ' ' .. lease_s .. ' ' .. worker)
    elseif holder == worker then redis.call('HDEL', addresses, address) end
end
redis.call('EXPIRE', addresses, string.format('%d', math.ceil(ttl_s * 4)))
return shared
