-- Defines size_of(record, log), the bytes that a job takes in memory; 0 of what is not there.
local function size_of(record, log)
    -- Of a hash every field counts: a request may be larger than all others together.
    local of_record = redis.call('MEMORY', 'USAGE', record, 'SAMPLES', 0)
    return (of_record or 0) + (redis.call('MEMORY', 'USAGE', log, 'SAMPLES', 64) or 0)
end
