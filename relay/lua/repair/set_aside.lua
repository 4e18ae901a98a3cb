#!lua flags=allow-oom
-- KEYS key damaged list; ARGV type ttl_s now, then what takes its place: of a string its text, of a
--   hash (field value)...; nothing: the key is gone
-- Renames a key that is of another type than this one, keeps what was there for ttl_s seconds, and
-- notes it in list. Returns the type that was found; '': the right one, or none.
local key, damaged, list = unpack(KEYS)
local kind, ttl_s, now = unpack(ARGV)
local found = redis.call('TYPE', key).ok
if found == kind or found == 'none' then return '' end
redis.call('RENAME', key, damaged)
redis.call('EXPIRE', damaged, ttl_s)
if kind == 'string' and ARGV[4] then redis.call('SET', key, ARGV[4]) end
if kind == 'hash' then
    for i = 4, #ARGV, 2 do redis.call('HSET', key, ARGV[i], ARGV[i + 1]) end
end
if redis.call('TYPE', list).ok ~= 'hash' then redis.call('DEL', list) end
redis.call('HSET', list, key, now .. ' ' .. found)
redis.call('EXPIRE', list, ttl_s)
return found
