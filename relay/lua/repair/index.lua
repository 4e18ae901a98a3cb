#!lua flags=allow-oom
-- KEYS an index for each entry; ARGV (score member)...
-- Adds entries to indexes, sorted sets, unless they are there. Returns 1.
for i, index in ipairs(KEYS) do
    redis.call('ZADD', index, 'NX', ARGV[2 * i - 1], ARGV[2 * i])
end
return 1
