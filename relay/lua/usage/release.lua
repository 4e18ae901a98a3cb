#!lua flags=allow-oom
-- KEYS spending reserved; ARGV job
-- Takes back what is reserved for a job that does not exist. Returns 1; 0: nothing was.
-- include shared/spending.lua
local spending, reserved = unpack(KEYS)
if redis.call('HEXISTS', reserved, ARGV[1]) == 0 then return 0 end
settle_job(spending, reserved, ARGV[1], 0, 0)
return 1
