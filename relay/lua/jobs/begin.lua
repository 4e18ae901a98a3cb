#!lua
-- KEYS and ARGV as shared/begin.lua. Writes a job's record. Returns what begin returns.
-- include shared/begin.lua
return begin(unpack(ARGV))
