#!lua
-- KEYS record children (of the parent); ARGV child ttl_s
-- Registers a job that waits for the end of another one. Returns the status of the parent, '' if it
-- does not exist; after its end nothing is registered.
-- include shared/ended.lua
local record, children = unpack(KEYS)
local status = redis.call('HGET', record, 'status')
if not status then return '' end
if not ended[status] then
    redis.call('HSET', record, 'children', 1)
    redis.call('SADD', children, ARGV[1])
    redis.call('EXPIRE', children, ARGV[2])
end
return status
