#!lua flags=allow-oom
-- KEYS record audience followed; ARGV job policy patience_s ('': not cancel_after_s)
-- Sets the policy of a job that several clients share to the most lenient of theirs. Returns 1 if
-- it has changed; else false.
-- include shared/followed.lua
local new_policy, new_patience_s = ARGV[2], ARGV[3]
if new_policy == 'continue' then
    redis.call('DEL', audience)
    redis.call('ZREM', followed, job)
elseif new_patience_s == '' or patience_s and patience_s >= tonumber(new_patience_s) then
    return false
end
redis.call('HSET', record, 'on_disconnect', new_policy)
return 1
