#!lua flags=allow-oom
-- KEYS record log live deadlines dead audience followed unsettled parents outbox
-- ARGV id channel status ttl_s terminal is_dead (1 or 0) grace_s nonce
-- Takes a job from its holder, or from the attempt with this nonce alone ('': from any), and appends
-- its terminal event (JSON, as in shared/event.lua); a
-- dead letter is added to dead. A job that was started, or for which something is reserved, is added
-- to unsettled; what it used is in its log. If other jobs wait for it, its id is added to parents,
-- which is a channel, too; if webhooks are to be told, it is added to outbox, another such channel.
-- A request of more than 4 KiB of a job that was never started is dropped: else enqueues and cancels
-- would fill Redis (docs/adr/0057).
-- Returns {priority, tenant}; false: it had ended before, does not exist, or is another attempt's.
-- include shared/event.lua
-- include shared/attempt.lua
-- include shared/ended.lua
-- include shared/retention.lua
local record, log, live, deadlines, dead, audience, followed, unsettled, parents, outbox =
    unpack(KEYS)
local id, channel, new_status, ttl_s, terminal, is_dead, grace_s, nonce = unpack(ARGV)
local status, attempt, priority, tenant, started, reserved, kind, backend, model, price, children,
    webhook, callback_url, created_at, retention_s, held_by =
    unpack(redis.call('HMGET', record, 'status', 'attempt', 'priority', 'tenant', 'started_at',
                      'reserved_tokens', 'kind', 'backend', 'model', 'price', 'children',
                      'webhook', 'callback_url', 'created_at', 'retention_s', 'nonce'))
if not (status or created_at) then
    redis.call('ZREM', live, id)
    redis.call('ZREM', deadlines, id)
    return false
end
if ended[status] or nonce ~= '' and held_by ~= nonce then return false end
attempt = math.max(whole(attempt, 1) or 0, logged(log)) + 1  -- the record's may be damaged
redis.call('HSET', record, 'attempt', attempt, 'status', new_status, 'ended_at', exact(now))
redis.call('HDEL', record, 'nonce', 'children')
if children then
    redis.call('ZADD', parents, exact(now), id)
    redis.call('PUBLISH', parents, id)
end
if not started and is_dead ~= '1' and redis.call('HSTRLEN', record, 'request') > 4096 then
    redis.call('HDEL', record, 'request')
end
-- What another program has put there is left alone: readers say what the record says.
local kind_of_log = redis.call('TYPE', log).ok
if kind_of_log == 'stream' or kind_of_log == 'none' then
    add_event(log, channel, attempt, 0, new_status, terminal)
end
if is_dead == '1' then
    redis.call('HSET', record, 'dead_at', exact(now))
    redis.call('ZADD', dead, exact(now), id)
end
keep(record, log, ttl_s, grace_s, retention_s or '')
redis.call('DEL', audience)
redis.call('ZREM', live, id)
redis.call('ZREM', deadlines, id)
redis.call('ZREM', followed, id)
if started or reserved then
    redis.call('XADD', unsettled, 'MAXLEN', '~', 1000000, '*', 'job', id, 'usage', cjson.encode({
        tenant = tenant or '', backend = backend or '', kind = kind or '', model = model or nil,
        status = new_status, attempts = started and attempt - 1 or 0, price = price or nil,
        reserved = reserved and true or false,
    }))
end
if webhook then
    local said = cjson.decode('{' .. terminal)
    redis.call('XADD', outbox, 'MAXLEN', '~', 1000000, '*', 'e', cjson.encode({
        family = webhook, id = id, tenant = tenant or '', status = new_status,
        url = callback_url or nil, kind = kind or '', model = model or nil,
        created_at = created_at, code = said.code, message = said.message or said.reason,
        forget = retention_s and true or nil,
    }))
    redis.call('PUBLISH', outbox, id)
end
return {priority or 'standard', tenant or ''}
