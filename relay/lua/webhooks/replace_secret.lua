#!lua flags=allow-oom
-- KEYS secrets; ARGV id, expected json ('': there is none), new json
-- Replaces the secrets of a webhook, if they are still those that the caller has read. Returns 1, also if
-- it is repeated; 0: another call has replaced them.
local secrets = KEYS[1]
local id, expected, new = unpack(ARGV)
local stored = redis.call('HGET', secrets, id) or ''
if stored == new then return 1 end
if stored ~= expected then return 0 end
redis.call('HSET', secrets, id, new)
return 1
