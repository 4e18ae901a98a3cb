#!lua flags=allow-oom
-- KEYS keys; ARGV id expected keeps json revision limit [new id, new keeps, new json]
-- Replaces a key's json, if its entry is the expected one, and adds another key, if there is one.
-- Returns the entry of the new key, else of the changed one; false: there is no key; or 'changed':
-- another change came first; 'last': no key could manage the others; 'full': the limit is reached.
local keys = KEYS[1]
local id, expected, keeps, json, revision, limit, new_id, new_keeps, new_json = unpack(ARGV)
local entry = redis.call('HGET', keys, id)
if not entry then return false end
local changed = keeps .. ' ' .. string.match(entry, '^%S+ (%S+)') .. ' ' .. json
if entry ~= expected and entry ~= changed then return 'changed' end
local field
local count, keepers = 0, (keeps == '1' or new_keeps == '1') and 1 or 0
for index, word in ipairs(redis.call('HGETALL', keys)) do
    if index % 2 == 1 then field = word
    elseif field ~= 'revision' then
        count = count + 1
        if field ~= id and string.sub(word, 1, 2) == '1 ' then keepers = keepers + 1 end
    end
end
if keepers == 0 then return 'last' end
local answer = changed
if new_id then
    local existing = redis.call('HGET', keys, new_id)
    if existing then return existing end
    if count >= tonumber(limit) then return 'full' end
    local time = redis.call('TIME')
    answer = string.format('%s %d.%06d %s', new_keeps, time[1], time[2], new_json)
    redis.call('HSET', keys, new_id, answer)
end
redis.call('HSET', keys, id, changed, 'revision', revision)
return answer
