#!lua flags=allow-oom
-- KEYS keys; ARGV id keeps (1: may manage keys and does not expire) json revision limit
-- Stores a new key. Returns its entry, '<keeps> <created_at> <json>' (also if the id exists);
-- 'first': the first key must have keeps = 1; 'full': the limit of keys is reached.
local keys = KEYS[1]
local id, keeps, json, revision, limit = unpack(ARGV)
local existing = redis.call('HGET', keys, id)
if existing then return existing end
local count = redis.call('HLEN', keys) - redis.call('HEXISTS', keys, 'revision')
if count == 0 and keeps ~= '1' then return 'first' end
if count >= tonumber(limit) then return 'full' end
local time = redis.call('TIME')
local entry = string.format('%s %d.%06d %s', keeps, time[1], time[2], json)
redis.call('HSET', keys, id, entry, 'revision', revision)
return entry
