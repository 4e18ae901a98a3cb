"""Who is next: the whole of the order inside a queue, from its arrival to whoever claims it.

Every waiting job has one number, its *virtual start*, in seconds of backend time: where the queue
has come to (the start of the job claimed last, or now if nothing waits), or where the job's tenant
has come to in its class if that is later; plus the slack of the class (contract/requests.py). A
tenant's clock advances by the cost of each job divided by the tenant's weight. So tenants share by
weight, one that comes late is served at once, classes age by themselves, nobody starves, and a
position is a rank. (Start-time fair queueing, Goyal, Vin and Cheng 1996.)

A claim takes the smallest number, with three exceptions. A worker whose slots for `batch` are used
up takes the first job of another class. A worker with warm models takes the first job of one of
these before a cold head, if it is of no lesser class, and for no longer than the patience since the
head was first passed over. Jobs that no endpoint may have now (`Taking.resting`, `Taking.only`) are
passed over, however many wait at the head: one model's trouble is in nobody else's way.

Invariants: a job is in exactly one of backlog, delayed and leases while it lives, and has facts;
`urgent` and the lines of models hold what the backlog holds of them; `lines` has the first job of
each line; `load` counts what waits.
Each script may be run twice. What holds, renews and returns a job is in leases.py.
"""

import json
from collections.abc import Mapping
from typing import Final, NamedTuple

from contract import redis_keys
from contract.cost import Cost, cost_of
from contract.jobs import AnyRequest, JobRecord
from contract.model_names import context_length_of
from contract.requests import SLACK_S
from contract.tenants import Tenant
from contract.wire import VERSION
from relay.connection import Argument
from relay.settings import RelaySettings

_PRELUDE: Final = """
local backlog, urgent, delayed, facts, leases, holders, clocks, load, queues, tickets = unpack(KEYS)
local queue = ARGV[1]
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local function exact(seconds) return string.format('%.6f', seconds) end
local lines = 'fleet:q:' .. queue .. ':lines'
local function line(model) return 'fleet:q:' .. queue .. ':line:' .. model end
local function line_of(job) return job.ctx and job.model .. '#ctx=' .. job.ctx or job.model end
local function head_changed(name)
    local head = redis.call('ZRANGE', line(name), 0, 0, 'WITHSCORES')
    if head[1] then redis.call('ZADD', lines, head[2], name)
    else redis.call('ZREM', lines, name) end
end
local function known(id)
    local text = redis.call('HGET', facts, id)
    return text and cjson.decode(text)
end
local function note(id, job) redis.call('HSET', facts, id, cjson.encode(job)) end

local function count(job, sign)
    for field, by in pairs({['tokens'] = job.tokens, ['jobs ' .. job.tenant] = 1,
                            ['tokens ' .. job.tenant] = job.tokens}) do
        if redis.call('HINCRBY', load, field, sign * by) <= 0 then
            redis.call('HDEL', load, field)
        end
    end
end
local function wait(id, job)
    local score = exact(job.start + job.slack)
    redis.call('ZREM', delayed, id)
    if redis.call('ZADD', backlog, score, id) == 1 then count(job, 1) end
    if not job.batch then redis.call('ZADD', urgent, score, id) end
    if job.model then
        redis.call('ZADD', line(line_of(job)), score, id)
        head_changed(line_of(job))
    end
    redis.call('ZADD', queues, exact(now), queue)
end
local function leave(id, job)
    if redis.call('ZREM', backlog, id) == 1 and job then count(job, -1) end
    redis.call('ZREM', urgent, id)
    redis.call('ZREM', delayed, id)
    if job and job.model then
        redis.call('ZREM', line(line_of(job)), id)
        head_changed(line_of(job))
    end
end
local function revive(most)
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', delayed, '-inf', exact(now),
                                   'LIMIT', 0, most)) do
        local job = known(id)
        if job then wait(id, job) else redis.call('ZREM', delayed, id) end
    end
end
"""
"""What the scripts of a queue share. KEYS are `keys_of(queue)`, ARGV[1] is the queue's name."""

DRAINS: Final = "#!lua flags=allow-oom\n" + _PRELUDE
"""The same for scripts that may write when Redis is full, so that what waits can drain."""

_ARRIVAL: Final = """
-- ARGV queue id facts cost_s flow tenant then bounds: jobs tokens tenant_jobs tenant_tokens
local job = cjson.decode(ARGV[3])
local depth = redis.call('ZCARD', backlog)
local function refusal()
    if depth == 0 then return nil end
    local tokens, own_jobs, own_tokens = unpack(redis.call(
        'HMGET', load, 'tokens', 'jobs ' .. ARGV[6], 'tokens ' .. ARGV[6]))
    local has = {depth, tokens, own_jobs, own_tokens}
    local adds = {1, job.tokens, 1, job.tokens}
    for i = 1, 4 do
        local bound, have = tonumber(ARGV[6 + i]), tonumber(has[i] or 0)
        if bound and have + adds[i] > bound then return {-i, have, bound} end
    end
end
local function start()
    if depth == 0 then return now end
    local reached, clock = unpack(redis.call('HMGET', clocks, 'now', ARGV[5]))
    return math.max(tonumber(reached or now), tonumber(clock or 0))
end
"""

EXPECT: Final = (
    "#!lua flags=no-writes,allow-oom\n"
    + _PRELUDE
    + _ARRIVAL
    + """
local answer = refusal() or {redis.call('ZCOUNT', backlog, '-inf', exact(start() + job.slack)) + 1}
return {answer, redis.call('MGET', unpack(ARGV, 11))}
"""
)
"""Say what ENQUEUE would: the position, or which bound (-1 to -4), what it holds, and the bound.

Besides, what the counters say that are named after ENQUEUE's arguments.
"""

ENQUEUE: Final = (
    "#!lua\n"
    + _PRELUDE
    + _ARRIVAL
    + """
local id = ARGV[2]
local rank = redis.call('ZRANK', backlog, id)
if rank then return {rank + 1} end
if redis.call('HEXISTS', facts, id) == 1 then return {0} end
local refused = refusal()
if refused then return refused end
job.start = start()
if depth == 0 then
    redis.call('DEL', clocks, load)
    redis.call('HSET', clocks, 'now', exact(now))
end
redis.call('HSET', clocks, ARGV[5], exact(job.start + ARGV[4]))
job.slack = job.slack + redis.call('HINCRBY', clocks, 'arrivals', 1) % 1000 / 1e6
redis.call('EXPIRE', clocks, 86400)
note(id, job)
wait(id, job)
if redis.call('LLEN', tickets) <= depth then redis.call('LPUSH', tickets, ARGV[11]) end
return {redis.call('ZRANK', backlog, id) + 1}
"""
)
"""Put a job into the backlog. Returns its position (0 if it is held), or what EXPECT says.

A ticket is only sent where there are fewer tickets than waiting jobs: every ticket taken claims
one job or finds that nothing waits (docs/adr/0001). Of two that start alike the first is first.
"""

CLAIM: Final = (
    DRAINS
    + """
-- ARGV queue worker version lease_s look_ahead batch cold patience_s taking (JSON)
local version, look_ahead, patience = tonumber(ARGV[3]), tonumber(ARGV[5]), tonumber(ARGV[8])
local batch, cold, drains = ARGV[6] == '1', ARGV[7] == '1', ARGV[7] == 'drains'
local taking = cjson.decode(ARGV[9])
local function set_of(list)
    local set = {}
    for _, name in ipairs(list) do set[name] = true end
    return set
end
local warm, resting, failing = set_of(taking.warm), set_of(taking.resting), set_of(taking.failing)
local only, full = {}, {}
for model, names in pairs(taking.only) do only[model] = set_of(names) end
local is_choosy, is_restricted = taking.choosy, next(resting) or next(only)
revive(16)

-- How a job's model is loaded: as the worker spells it, and as everybody does.
local function spelled(job) return taking.contexts and line_of(job) or job.model end
local function base(model) return (string.gsub(model, ':latest$', '')) end
local function loaded(job)
    local ctx = taking.contexts and job.ctx
    return base(job.model) .. (ctx and '#ctx=' .. ctx or '')
end
-- Whether some endpoint may have the job now. One that waits for its model to be loaded otherwise
-- is overtaken by jobs of what is loaded for no longer than the patience; then these wait, too.
local function may_run(id, job)
    if not (is_restricted and job.model) then return true end
    local name, model = loaded(job), base(job.model)
    if resting[name] then return false end
    if not only[model] then return true end
    if only[model][name] then return not full[model] end
    if not job.passed then
        job.passed = now
        note(id, job)
    end
    if now - job.passed >= patience then full[model] = true end
    return false
end
local function first(set, least)
    local found = redis.call('ZRANGE', set, 0, look_ahead - 1, 'WITHSCORES')
    for i = 1, #found, 2 do
        local id, job = found[i], known(found[i])
        if not job or set ~= backlog and not redis.call('ZSCORE', backlog, id) then
            redis.call('ZREM', set, id)
        elseif job.v <= version and (batch or not job.batch)
                and job.attempt <= (least or job.attempt) and may_run(id, job) then
            return id, job, tonumber(found[i + 1])
        end
    end
end
local function first_of(names)
    local id, job, score
    for _, name in ipairs(names) do
        local other, its, at = first(line(name))
        if other and (not id or at < score) then id, job, score = other, its, at end
    end
    return id, job
end
local id, job = first(batch and backlog or urgent)
if not id and is_restricted then
    id, job = first_of(redis.call('ZRANGE', lines, 0, LINES - 1))
end
if not id then return false end
if is_choosy and job.model and not warm[spelled(job)] then
    local other, its = first_of(taking.warm)
    local passes = other and its.slack < job.slack + 1 and now - (job.passed or now) < patience
    if not (cold or other) or drains and not passes then return false end
    if (cold or drains) and passes and not job.passed then
        job.passed = now
        note(id, job)
    end
    if passes or not cold then id, job = other, its end
end
if job.model and failing[loaded(job)] and job.attempt > 1 then
    local other, its = first(line(line_of(job)), 1)
    if other then id, job = other, its end
end
leave(id, job)
redis.call('ZADD', leases, exact(now + ARGV[4]), id)
redis.call('HSET', holders, id, job.attempt .. ' ' .. ARGV[2])
local reached = redis.call('HGET', clocks, 'now')
if not reached or tonumber(reached) < job.start then
    redis.call('HSET', clocks, 'now', exact(job.start))
    redis.call('EXPIRE', clocks, 86400)
end
return {id, job.attempt, exact(now), job.model or '', job.ctx or ''}
""".replace("LINES", "256")
)
"""Pick the job that should run next and lease it.

Returns id, attempt, now, model, context length; or nothing. A job in a version that the worker does
not know is passed over and stays where it is. Of a model that failed last, a job that was not tried
yet goes first: what broke the model may have been the jobs that come back.
"""

WAKE: Final = (
    DRAINS
    + """
-- ARGV queue idle_s ticket...
revive(100)
local used_at = redis.call('ZSCORE', queues, queue)
local depth = redis.call('ZCARD', backlog)
if used_at and used_at + ARGV[2] < now and depth == 0
        and redis.call('ZCARD', leases) == 0 and redis.call('ZCARD', delayed) == 0 then
    redis.call('ZREM', queues, queue)
end
local missing = depth - redis.call('LLEN', tickets)
local sent = 0
for i = 3, #ARGV do
    if sent >= missing then break end
    redis.call('LPUSH', tickets, ARGV[i])
    sent = sent + 1
end
return missing - sent
"""
)
"""Let the delayed jobs that are due wait again, and send the tickets that were lost.

There must be as many tickets as jobs that wait. Also forgets the name of a queue that has been
empty for `idle_s`. Returns how many tickets are missing still.
"""

_LOOK_AHEAD: Final = 32
"""Jobs of a newer version that a claim may pass over before it gives up."""


class ClaimFilter(NamedTuple):
    """What a worker would take now."""

    warm: frozenset[str] | None = None
    """Models whose jobs cost no load; None: every model is as good as another."""
    cold: bool = True
    """Whether it takes other models' jobs at all: not while it loads one."""
    drains: bool = False
    """With `cold=False`: whether warm ones, too, overtake a cold head for the patience only."""
    batch: bool = True
    """Whether it takes jobs of class `batch`: not while these hold all the slots they may."""
    resting: frozenset[str] = frozenset()
    """Models (contract/model_names.py, canonical) whose jobs no endpoint may have now."""
    failing: frozenset[str] = frozenset()
    """The same, that failed last: a job not tried yet goes before one that comes back."""
    only: Mapping[str, frozenset[str]] | None = None
    """As what a model may run beside what runs, by its untagged name; others may as anything.
    None: the backend loads a model in one way only, whatever context length a job asks for."""


class Bounds(NamedTuple):
    """How much may wait in one queue: of everybody, and of one tenant. None: no bound."""

    jobs: int | None
    tokens: int | None
    tenant_jobs: int | None
    tenant_tokens: int | None


def keys_of(queue: str) -> list[str]:
    """The keys of a queue, in the order in which its scripts name them."""
    return [
        redis_keys.backlog(queue),
        redis_keys.urgent(queue),
        redis_keys.delayed(queue),
        redis_keys.facts(queue),
        redis_keys.leases(queue),
        redis_keys.holders(queue),
        redis_keys.clocks(queue),
        redis_keys.load(queue),
        redis_keys.QUEUES,
        queue,
    ]


def arrival(
    record: JobRecord, request: AnyRequest, tenant: Tenant, bounds: Bounds
) -> list[Argument]:
    """The arguments of EXPECT, and of ENQUEUE, which takes a ticket besides."""
    cost = cost_of(request)
    flow = f"{record.priority} {tenant.name}"
    limits = ["" if bound is None else bound for bound in bounds]
    share_s = cost.seconds / tenant.weight
    facts = facts_of(record, cost, context_length_of(request))
    return [record.queue, record.id, facts, f"{share_s:.6f}", flow, tenant.name, *limits]


def taken(queue: str, worker: str, settings: RelaySettings, taking: ClaimFilter) -> list[Argument]:
    """The arguments of CLAIM."""
    told = {
        "choosy": taking.warm is not None,
        "warm": sorted(taking.warm or ()),
        "resting": sorted(taking.resting),
        "failing": sorted(taking.failing),
        "contexts": taking.only is not None,
        "only": {model: sorted(redis_keys) for model, redis_keys in (taking.only or {}).items()},
    }
    return [
        queue, worker, VERSION, settings.lease_s, _LOOK_AHEAD, int(taking.batch),
        "drains" if taking.drains else int(taking.cold), settings.affinity_patience_s,
        json.dumps(told),
    ]  # fmt: skip


def restored(facts: str, created_at: float) -> str:
    """The facts of a job that its queue has lost: it starts where it would have in an empty one.

    What a newer version has added to them stays.
    """
    return json.dumps({**json.loads(facts), "start": created_at})


def facts_of(record: JobRecord, cost: Cost, context_length: int | None = None) -> str:
    """What a claim must know of a job (JSON); ENQUEUE adds `start`, the virtual start."""
    facts = {
        "v": record.v,
        "attempt": record.attempt,
        "model": record.model,
        "ctx": None if context_length is None else str(context_length),
        "tenant": record.tenant,
        "tokens": cost.tokens,
        "slack": SLACK_S[record.priority],
        "batch": record.priority == "batch" or None,
    }
    return json.dumps({name: value for name, value in facts.items() if value is not None})
