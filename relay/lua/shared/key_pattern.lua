-- Defines keys_like(pattern), which returns a function from an id to its key: as in SORT ... BY,
-- the first * of the pattern stands for the id. No other code in a script builds the name of a key.
local function keys_like(pattern)
    local before, after = string.match(pattern, '^(.-)%*(.*)$')
    return function(id) return before .. id .. after end
end
