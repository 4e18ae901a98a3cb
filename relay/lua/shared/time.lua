-- Defines now, the unix time in seconds by Redis's clock, and exact(seconds), its text to the
-- microsecond.
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local function exact(seconds) return string.format('%.6f', seconds) end
