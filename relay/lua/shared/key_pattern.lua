-- Defines keys_like(pattern), which returns a function from an id to its key: as in SORT ... BY,
-- the first * of the pattern is replaced by the id. No other code in a script builds a key's name.
local function keys_like(pattern)
    local before, after = string.match(pattern, '^(.-)%*(.*)$')
    return function(id) return before .. id .. after end
end
