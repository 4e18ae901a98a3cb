-- KEYS keys; ARGV id keeps (1: may manage keys and does not expire) json revision limit
-- Returns the key's entry, '<keeps> <created_at> <json>'; 'first': the first key must keep;
-- 'full': there are as many as may be. The same id again returns its entry.
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
