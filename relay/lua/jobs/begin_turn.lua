#!lua
-- KEYS as shared/begin.lua, then turns; with an Idempotency-Key also key keys
-- ARGV policy turns_ttl_s record_pattern, fingerprint queue ttl_s renew_s (of the key, '': none),
--   then as shared/begin.lua
-- Keys beyond KEYS: the records of the conversation's jobs, and of the key's job.
-- Writes the record of a conversation's next message. Returns {job, queue, state, created_at,
-- earlier...}: states as shared/idempotency.lua, or -2: an earlier message has not ended, and the
-- policy is reject. created_at is '' if nothing was written. earlier are the jobs that have not
-- ended: all for interrupt, the first for queue and reject.
-- include shared/begin.lua
-- include shared/idempotency.lua
-- include shared/turns.lua
local turns, key, keys = unpack(KEYS, 9)
local policy, turns_ttl_s, record_pattern, fingerprint, queue, ttl_s, renew_s = unpack(ARGV, 1, 7)
local id = ARGV[8]
local record_of = keys_like(record_pattern)
local most_interrupted, pruned_at = 1000, 16
if key then
    local held = hold(key, keys, fingerprint, '', '', ttl_s, renew_s, record_pattern)
    if held and held[1] ~= id then return {held[1], held[2], held[3], ''} end
end
-- If this is repeated after a lost reply, it is in the list itself, or has ended already.
local written, status = unpack(redis.call('HMGET', record, 'created_at', 'status'))
-- Each time that the list has doubled, so that it has no more ended jobs than live ones, or 16, and
-- a message costs the same however many wait.
local count = (tonumber(redis.pcall('LLEN', turns)) or 0) + 1
while pruned_at < count do pruned_at = pruned_at * 2 end
if count == pruned_at then prune(turns, record_of) end
local earlier = {}
if policy ~= 'parallel' and not ended[status] then
    local most = policy == 'interrupt' and most_interrupted or 1
    for _, other in ipairs(live_turns(turns, record_of, most)) do
        if other == id then break end
        table.insert(earlier, other)
    end
end
if written then return {id, queue, 1, written, unpack(earlier)} end
if policy == 'reject' and earlier[1] then return {id, queue, -2, '', earlier[1]} end
if key then hold(key, keys, fingerprint, id, queue, ttl_s, renew_s, record_pattern) end
redis.call('RPUSH', turns, id)
-- An earlier message may have a later deadline.
if redis.call('TTL', turns) < tonumber(turns_ttl_s) then redis.call('EXPIRE', turns, turns_ttl_s) end
return {id, queue, 1, begin(unpack(ARGV, 8))[2], unpack(earlier)}
