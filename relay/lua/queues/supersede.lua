#!lua flags=allow-oom
-- KEYS as shared/queue.lua, then drained (the counter of this minute)
-- ARGV as shared/queue.lua, then id attempt
-- Removes a job, waiting or held, as an attempt before this one has left it there; then the queue may
-- get it as this attempt. Returns 1: it is there as this attempt or a later one, and stays; else 0.
-- include shared/release.lua
local id, attempt = ARGV[3], tonumber(ARGV[4])
local job = known(id)
if job and tonumber(job.attempt) >= attempt then return 1 end
release(id, '', KEYS[16])
return 0
