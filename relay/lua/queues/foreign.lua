#!lua flags=no-writes,allow-oom
-- KEYS tickets; ARGV task limit
-- Returns how many of the `limit` messages that are taken next are none of this task: those of
-- other Celery applications. They are read one by one, because a message may have megabytes.
local tickets, task, limit = KEYS[1], ARGV[1], tonumber(ARGV[2])
local found = 0
for at = 1, limit do
    local message = redis.call('LINDEX', tickets, -at)
    if not message then break end
    if not string.find(message, task, 1, true) then found = found + 1 end
end
return found
