#!lua flags=allow-oom
-- KEYS batch rows parts live index sharing; ARGV token gives_up (1 or 0)
-- Begins to write the output. Returns {status, '1' if it gives up unanswered rows, else ''};
-- false: the lease is lost.
-- include shared/driven.lua
-- include shared/time.lua
if get('status') == 'in_progress' then
    redis.call('HSET', batch, 'status', 'finalizing', 'finalizing_at', exact(now))
    if ARGV[2] == '1' then redis.call('HSET', batch, 'gives_up', 1) end
end
return {get('status'), get('gives_up') or ''}
