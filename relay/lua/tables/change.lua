#!lua flags=allow-oom
-- KEYS table; ARGV known revision, new revision, field, json ('': delete it)
-- Sets or deletes a field of a table that processes copy, if it is still the one that the caller has
-- read. Returns 1, also if it is repeated; 0: the table has another revision.
local stored = KEYS[1]
local known, new, field, json = unpack(ARGV)
local revision = redis.call('HGET', stored, 'revision') or ''
if revision == new then return 1 end
if revision ~= known then return 0 end
if json == '' then redis.call('HDEL', stored, field)
else redis.call('HSET', stored, field, json) end
redis.call('HSET', stored, 'revision', new)
return 1
