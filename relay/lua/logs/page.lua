#!lua flags=no-writes,allow-oom
-- Entries of a log after an id: as many as the most in number and bytes, or one.
-- KEYS[1] log
-- ARGV: after, most entries, most bytes
-- Returns 1 if the log has no further entry, else 0; then the entries, as XRANGE does.
local after, most, most_bytes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local page, bytes, largest, step = {}, 0, 1, 1
while #page < most and bytes < most_bytes do
  local found = redis.call('XRANGE', KEYS[1], '(' .. after, '+', 'COUNT', step)
  for _, entry in ipairs(found) do
    local size = 0
    for _, part in ipairs(entry[2]) do
      size = size + #part
    end
    if #page > 0 and bytes + size > most_bytes then
      return {0, page}
    end
    page[#page + 1], after = entry, entry[1]
    bytes, largest = bytes + size, math.max(largest, size)
  end
  if #found < step then
    return {1, page}
  end
  -- Few at a time, or as many of the largest as fit: the next entries may all be large.
  step = math.max(1, math.min(2 * step, 4, math.floor((most_bytes - bytes) / largest)))
end
return {0, page}
