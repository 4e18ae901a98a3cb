#!lua flags=allow-oom
-- KEYS receipt key...; ARGV field
-- Deletes the keys and adds to a field of a receipt how many there were, so that a process that is
-- killed counts each once. Returns that number.
local erased = redis.call('UNLINK', unpack(KEYS, 2))
if erased > 0 then redis.call('HINCRBY', KEYS[1], ARGV[1], erased) end
return erased
