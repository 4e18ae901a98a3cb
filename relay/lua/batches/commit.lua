#!lua flags=allow-oom
-- KEYS batch rows parts live index sharing
-- ARGV token part completed failed prompt completion cached reasoning row...
-- Lists a part, and marks and counts its rows. Returns 1; 0: a row was marked before; false: the
-- lease is lost.
-- include shared/driven.lua
local part = ARGV[2]
if get('last_part') == part then return 1 end
for i = 9, #ARGV do
    if redis.call('GETBIT', rows, ARGV[i]) == 1 then return 0 end
end
for i = 9, #ARGV do redis.call('SETBIT', rows, ARGV[i], 1) end
redis.call('RPUSH', parts, part)
for i, field in ipairs({'completed', 'failed', 'prompt_tokens', 'completion_tokens',
                        'cached_tokens', 'reasoning_tokens'}) do
    redis.call('HINCRBY', batch, field, ARGV[2 + i])
end
redis.call('HSET', batch, 'last_part', part)
redis.call('HDEL', batch, 'pending_completed', 'pending_failed')
return 1
