#!lua flags=allow-oom
-- KEYS and ARGV as shared/start.lua. Starts a claimed job. Returns what start returns.
-- include shared/start.lua
return start()
