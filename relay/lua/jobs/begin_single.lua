#!lua
-- KEYS as shared/begin.lua, then single; ARGV record_pattern, then as shared/begin.lua
-- Keys beyond KEYS: the record of the job that single names.
-- Writes a job's record unless single names a job that has not ended. Returns what begin returns,
-- or {other id}.
-- include shared/begin.lua
-- include shared/ended.lua
-- include shared/key_pattern.lua
local single, id = KEYS[9], ARGV[2]
if redis.call('EXISTS', record) == 0 then
    local other = redis.call('GET', single)
    local status = other and redis.call('HGET', keys_like(ARGV[1])(other), 'status')
    if status and not ended[status] then return {other} end
    redis.call('SET', single, id, 'EX', 604800)
end
return begin(unpack(ARGV, 2))
