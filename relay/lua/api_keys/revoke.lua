#!lua flags=allow-oom
-- KEYS keys; ARGV id revision
-- Deletes a key. Returns its entry; false: there is none; 'last': it is not deleted, because no
-- other key could manage the remaining ones.
local keys = KEYS[1]
local id, revision = unpack(ARGV)
local entry = redis.call('HGET', keys, id)
if not entry then return false end
local field
local others, keepers = 0, 0
for index, word in ipairs(redis.call('HGETALL', keys)) do
    if index % 2 == 1 then field = word
    elseif field ~= 'revision' and field ~= id then
        others = others + 1
        if string.sub(word, 1, 2) == '1 ' then keepers = keepers + 1 end
    end
end
if others > 0 and keepers == 0 then return 'last' end
redis.call('HDEL', keys, id)
redis.call('HSET', keys, 'revision', revision)
return entry
