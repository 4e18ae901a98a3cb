#!lua
-- KEYS aliases; ARGV known revision, new revision, field, json ('': delete it)
-- Sets or deletes an alias, if the table is still the one that the caller has checked it with.
-- Returns 1, also if it is repeated; 0: the table has another revision.
local aliases = KEYS[1]
local known, new, field, json = unpack(ARGV)
local revision = redis.call('HGET', aliases, 'revision') or ''
if revision == new then return 1 end
if revision ~= known then return 0 end
if json == '' then redis.call('HDEL', aliases, field)
else redis.call('HSET', aliases, field, json) end
redis.call('HSET', aliases, 'revision', new)
return 1
