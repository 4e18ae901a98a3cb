-- Defines settled_s: seconds after which a key whose job does not exist led to none.
-- include shared/time.lua
-- include shared/key_pattern.lua
local settled_s = 60
