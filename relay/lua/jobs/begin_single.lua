#!lua
-- KEYS as shared/begin.lua, then single, and key (of an Idempotency-Key that is bound to the job);
--   ARGV record_pattern, then as shared/begin.lua
-- Keys beyond KEYS: the record of the job that single names, and of the one that key is bound to.
-- Writes a job's record unless single names a job that has not ended; key is bound to that then.
-- Returns what begin returns, or {other id}, also if key has been bound to another meanwhile.
-- include shared/begin.lua
-- include shared/ended.lua
-- include shared/key_pattern.lua
local single, key, id, record_of = KEYS[9], KEYS[10], ARGV[2], keys_like(ARGV[1])
local bound = key and redis.call('HGET', key, 'job')
if bound and bound ~= id and redis.call('EXISTS', record_of(bound)) == 1 then return {bound} end
if redis.call('EXISTS', record) == 0 then
    local other = redis.call('GET', single)
    local status = other and redis.call('HGET', record_of(other), 'status')
    if status and not ended[status] then
        if bound == id then redis.call('HSET', key, 'job', other) end
        return {other}
    end
    redis.call('SET', single, id, 'EX', 604800)
end
return begin(unpack(ARGV, 2))
