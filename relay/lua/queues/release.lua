#!lua flags=allow-oom
-- KEYS as shared/queue.lua, then drained (the counter of this minute)
-- ARGV as shared/queue.lua, then id holder ('': any)
-- Removes a job that has ended. Returns its holder or false: shared/release.lua.
-- include shared/release.lua
return release(ARGV[3], ARGV[4], KEYS[16])
