#!lua flags=no-writes,allow-oom
-- KEYS leases holders; ARGV limit
-- Returns, for each expired lease, the job's id and its holder ('': unknown).
-- include shared/time.lua
local leases, holders = unpack(KEYS)
local answer = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, ARGV[1])) do
    answer[#answer + 1] = id
    answer[#answer + 1] = redis.call('HGET', holders, id) or ''
end
return answer
