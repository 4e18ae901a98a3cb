#!lua flags=allow-oom
-- KEYS receipt key...; ARGV field
-- Deletes the keys and adds to a field of a receipt how many there were, so that a process that is
-- killed counts each once. Returns that number.
local before = redis.call('HGET', KEYS[1], ARGV[1])
-- What another program wrote there counts as nothing.
if before and not string.match(before, '^%d+$') then redis.call('HDEL', KEYS[1], ARGV[1]) end
local erased = redis.call('UNLINK', unpack(KEYS, 2))
if erased > 0 then redis.call('HINCRBY', KEYS[1], ARGV[1], erased) end
return erased
