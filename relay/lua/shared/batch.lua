-- Names the first six KEYS of a batch's scripts: batch rows parts live index sharing. Defines
-- get(field), a field of the batch's record.
local batch, rows, parts, live, index, sharing = unpack(KEYS)
local function get(field) return redis.call('HGET', batch, field) end
