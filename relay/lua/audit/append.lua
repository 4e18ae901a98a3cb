#!lua flags=allow-oom
-- KEYS log, ids of the entries that share a bound; ARGV entry, the bound, ttl_s
-- Appends an entry to an audit log; of those that share its bound the oldest ones go. Every entry has
-- a microsecond of its own, its score and id. The same entry is appended once. Returns nothing.
local log, sharing = KEYS[1], KEYS[2]
local entry, most, ttl_s = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
if redis.call('ZSCORE', log, entry) then return end

local time = redis.call('TIME')
local now_us = tonumber(time[1]) * 1e6 + tonumber(time[2])
local newest = redis.call('ZREVRANGEBYSCORE', log, '9007199254740990', 0, 'WITHSCORES', 'LIMIT', 0, 1)
local id = string.format('%.0f', math.max(now_us, tonumber(newest[2] or 0) + 1))

redis.call('ZADD', log, id, entry)
redis.call('RPUSH', sharing, id)
for _ = 1, math.min(redis.call('LLEN', sharing) - most, 100) do
  local oldest = redis.call('LPOP', sharing)
  -- What is no number was not written by the fleet.
  if tonumber(oldest) then redis.pcall('ZREMRANGEBYSCORE', log, oldest, oldest) end
end
redis.call('ZREMRANGEBYSCORE', log, '-inf', string.format('%.0f', now_us - ttl_s * 1e6))
redis.call('EXPIRE', log, ttl_s)
redis.call('EXPIRE', sharing, ttl_s)
