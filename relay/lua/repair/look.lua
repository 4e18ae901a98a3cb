#!lua flags=no-writes,allow-oom
-- KEYS queues, then other keys with one name; ARGV types (JSON: `shared`, the types of those;
--   `queue`, the types of a queue's keys by their patterns; `lines`, `line`, patterns) first count
-- Keys beyond KEYS: those of the queues of these ranks in queues, and the lines of models there.
-- Returns {how many queues were looked at, keys that are of another type...}.
-- include shared/key_pattern.lua
local types, wrong = cjson.decode(ARGV[1]), {}
local function look(key, kind)
    local found = redis.call('TYPE', key).ok
    if found ~= kind and found ~= 'none' then wrong[#wrong + 1] = key end
    return found == kind
end
for i, kind in ipairs(types.shared) do look(KEYS[i], kind) end
local first, count = tonumber(ARGV[2]), tonumber(ARGV[3])
local names = redis.pcall('ZRANGE', KEYS[1], first, first + count - 1)
if names.err then names = {} end
for _, name in ipairs(names) do
    for pattern, kind in pairs(types.queue) do look(keys_like(pattern)(name), kind) end
    local lines = keys_like(types.lines)(name)
    if look(lines, 'zset') then
        local line = keys_like(keys_like(types.line)(name))
        for _, model in ipairs(redis.call('ZRANGE', lines, 0, 31)) do look(line(model), 'zset') end
    end
end
return {#names, unpack(wrong)}
