#!lua flags=allow-oom
-- KEYS facts; ARGV (id facts)...
-- Gives jobs their facts again, unless they have any. Returns how many got theirs.
local noted = 0
for i = 1, #ARGV, 2 do noted = noted + redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 1]) end
return noted
