-- KEYS index (a sorted set by time); ARGV prefix first last
-- Returns the number of ids from rank first to last, counted from the newest, then those of them
-- that have the prefix.
local prefix, first, last = unpack(ARGV)
local ids = redis.call('ZREVRANGE', KEYS[1], first, last)
local found = {#ids}
for _, id in ipairs(ids) do
    if string.sub(id, 1, #prefix) == prefix then found[#found + 1] = id end
end
return found
