-- Defines settled_s: a key without a job's record for that many seconds counts as unused.
-- include shared/time.lua
-- include shared/key_pattern.lua
local settled_s = 60
