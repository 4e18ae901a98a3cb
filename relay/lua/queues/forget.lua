#!lua flags=allow-oom
-- KEYS idle addresses; ARGV worker
-- Forgets the idle slots of a worker that is silent, and the addresses that it has reported last.
-- Returns how many addresses went.
local idle, addresses = unpack(KEYS)
local worker = ARGV[1]
for _, member in ipairs(redis.call('ZRANGE', idle, 0, -1)) do
    if member == worker or string.match(member, '^%S+ (.+)$') == worker then
        redis.call('ZREM', idle, member)
    end
end
local gone, entries = 0, redis.call('HGETALL', addresses)
for i = 1, #entries, 2 do
    if string.match(entries[i + 1], '^%S+ %S+ (.+)$') == worker then
        gone = gone + redis.call('HDEL', addresses, entries[i])
    end
end
return gone
