#!lua flags=allow-oom
-- KEYS batch rows parts live index sharing
-- Cancels a batch; one that waits for its time is driven now, to its end. Returns 1 if the status has changed, else 0; then the record (HGETALL).
-- include shared/batch.lua
-- include shared/time.lua
local status, changed = get('status'), 0
if status == 'validating' or status == 'in_progress' then
    redis.call('HSET', batch, 'status', 'cancelling', 'cancelling_at', exact(now))
    if not get('driver') then redis.call('ZADD', live, 'XX', 0, get('id')) end
    changed = 1
end
local fields = redis.call('HGETALL', batch)
table.insert(fields, 1, changed)
return fields
