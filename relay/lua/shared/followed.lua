-- Names the first KEYS and ARGV of the followers' scripts: KEYS record audience followed; ARGV
-- job. Defines patience_s, the seconds of cancel_after_s. Returns false from the script, and
-- deletes the followers, if the job has ended or its policy is continue.
-- include shared/time.lua
-- include shared/ended.lua
local record, audience, followed = unpack(KEYS)
local job = ARGV[1]
local status, policy = unpack(redis.call('HMGET', record, 'status', 'on_disconnect'))
local ends = status and (policy == 'cancel' or string.match(policy or '', '^cancel_after_s='))
local patience_s = ends and tonumber(string.match(policy, '[%d.e+-]+$'))
if not ends or ended[status] then
    redis.call('DEL', audience)
    redis.call('ZREM', followed, job)
    return false
end
