"""Many messages of conversations: they shut no other tenant out, and cost what few cost.

Subjects: relay/lua/queues/claim.lua, relay/lua/queues/enqueue.lua, relay/lua/shared/turns.lua.
"""

import re

from support.redis_server import RedisServer
from support.relay import QUEUE, Relay, chat, relay_on

from contract import redis_keys
from contract.conversations import conversation_id
from contract.events import Done
from contract.tenants import DEFAULT_TENANT, Tenant
from relay.claims import StartedJob
from relay.leases import Holder
from relay.order import ClaimFilter

A, B = Tenant(name="a"), Tenant(name="b")
MORE_THAN_A_CLAIM_PASSES_OVER = 320
HERE = ClaimFilter(here=frozenset({"x"}))


async def send(relay: Relay, tenant: Tenant, policy: str | None = None) -> str:
    words = {"conversation": "c", "conversation_policy": policy} if policy else {}
    record, _ = await relay.queue.enqueue(chat(**words), queue=QUEUE, tenant=tenant)
    return record.id


async def begin(relay: Relay) -> StartedJob | None:
    claimed = await relay.claims.claim(QUEUE, "w", HERE)
    return claimed and await relay.claims.start(claimed, home="x")


async def run(relay: Relay) -> str | None:
    """Run the job that is next to its end; the id of it."""
    if (job := await begin(relay)) is None:
        return None
    await end(relay, job)
    return job.record.id


async def end(relay: Relay, job: StartedJob) -> None:
    log = relay.attempt_log(job)
    log.append(Done())
    await log.flush()
    await relay.leases.release(QUEUE, job.record.id, Holder(job.attempt, "w"))


async def test_messages_that_wait_for_one_another_shut_no_other_tenant_out(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        for _ in range(MORE_THAN_A_CLAIM_PASSES_OVER):
            await send(relay, A, "queue")
        assert await begin(relay) is not None
        for _ in range(MORE_THAN_A_CLAIM_PASSES_OVER):
            job = await send(relay, B)
            assert await run(relay) == job


async def test_messages_that_came_before_an_earlier_one_shut_nobody_out(redis_url: str) -> None:
    """They were not put behind as they arrived: their list said that each is the next."""
    async with relay_on(redis_url) as relay:
        first = await send(relay, A, "queue")
        key = redis_keys.turns(conversation_id(A.name, "c"))
        for _ in range(MORE_THAN_A_CLAIM_PASSES_OVER):
            await relay.connection.command("DEL", key)
            await send(relay, A, "queue")
        ids = await relay.connection.command("ZRANGE", redis_keys.backlog(QUEUE), 0, -1)
        await relay.connection.command("DEL", key)
        await relay.connection.command("RPUSH", key, *ids)
        job = await begin(relay)
        assert job is not None
        assert job.record.id == first
        for _ in range(MORE_THAN_A_CLAIM_PASSES_OVER):
            await send(relay, B)
        found = 0
        for _ in range(2 * MORE_THAN_A_CLAIM_PASSES_OVER):
            found += await run(relay) is not None

        assert found == MORE_THAN_A_CLAIM_PASSES_OVER


async def test_the_next_message_has_the_place_again_that_it_would_have_had(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await send(relay, A, "queue")
        second, third = [await send(relay, A, "queue") for _ in range(2)]
        first = await begin(relay)
        assert first is not None
        others = [await send(relay, B) for _ in range(4)]
        await end(relay, first)
        order = [await run(relay) for _ in range(6)]

        assert order.index(second) < order.index(others[2])
        assert order.index(second) < order.index(third) < order.index(others[3])
        assert set(order) == {second, third, *others}
        assert await relay.connection.command("EXISTS", redis_keys.behind(QUEUE)) == 0


async def test_a_message_costs_the_same_however_many_wait(own_redis: RedisServer) -> None:
    costs = {}
    async with relay_on(own_redis.url) as relay:
        for policy in ("queue", "parallel"):
            tenant = Tenant(name=policy)
            for _ in range(600):
                await send(relay, tenant, policy)
            own_redis.say("CONFIG", "RESETSTAT")
            await send(relay, tenant, policy)
            await begin(relay)
            costs[policy] = commands(own_redis)

    assert all(each < 200 for each in costs.values()), costs


def commands(redis: RedisServer) -> int:
    """Commands since the statistics were reset, those in scripts among them."""
    told = redis.say("INFO", "commandstats").decode()
    return sum(map(int, re.findall(r":calls=(\d+)", told)))


async def test_a_list_has_few_messages_that_have_ended(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        kept = [await send(relay, DEFAULT_TENANT, "parallel") for _ in range(3)]
        for _ in range(70):
            job = await send(relay, DEFAULT_TENANT, "parallel")
            await relay.queue.cancel(job, by="caller")
        key = redis_keys.turns(conversation_id(DEFAULT_TENANT.name, "c"))
        ids = [id.decode() for id in await relay.connection.command("LRANGE", key, 0, -1)]

        assert ids[:3] == kept
        assert len(ids) <= 20
        assert await relay.connection.command("TTL", key) > 0


async def converse(relay: Relay, tenant: Tenant, name: str) -> None:
    await relay.queue.enqueue(chat(conversation=name), queue=QUEUE, tenant=tenant)
    job = await begin(relay)
    assert job is not None
    await end(relay, job)


async def homes_of(relay: Relay, tenant: Tenant, names: list[str]) -> list[str]:
    """Those of a tenant's conversations whose address is remembered."""
    kept = await relay.connection.command("HGETALL", redis_keys.homes(QUEUE))
    return [each for each in names if conversation_id(tenant.name, each).encode() in kept]


async def test_a_flood_of_conversations_costs_no_other_tenant_its_prefix(redis_url: str) -> None:
    async with relay_on(redis_url, conversations_kept=20) as relay:
        quiet = [f"b{n}" for n in range(4)]
        for name in quiet:
            await converse(relay, B, name)
        flood = [f"a{n}" for n in range(60)]
        for name in flood:
            await converse(relay, A, name)
        late = [f"c{n}" for n in range(3)]
        for name in late:
            await converse(relay, Tenant(name="c"), name)

        assert await homes_of(relay, B, quiet) == quiet
        assert await homes_of(relay, A, flood) == flood[-8:]
        assert await homes_of(relay, Tenant(name="c"), late) == late
        assert await relay.connection.command("ZCARD", redis_keys.homes_used(QUEUE)) == 15


async def test_without_keys_all_conversations_are_kept_up_to_the_bound(redis_url: str) -> None:
    async with relay_on(redis_url, conversations_kept=9) as relay:
        names = [f"c{n}" for n in range(12)]
        for name in names:
            await converse(relay, DEFAULT_TENANT, name)

        assert await homes_of(relay, DEFAULT_TENANT, names) == names[-9:]


async def test_a_message_of_a_conversation_that_goes_on_costs_nothing_more_for_the_share(
    own_redis: RedisServer,
) -> None:
    """The least of twenty: a claim writes the queue's clock in half of the cases, as its tenth of a
    millisecond was rounded up or down."""
    costs = []
    async with relay_on(own_redis.url) as relay:
        for tenant in (DEFAULT_TENANT, A):
            await converse(relay, tenant, "c")
            costs.append(min([await counted(own_redis, relay, tenant) for _ in range(20)]))

    assert costs[1] <= costs[0]


async def counted(redis: RedisServer, relay: Relay, tenant: Tenant) -> int:
    """The commands of one more message."""
    redis.say("CONFIG", "RESETSTAT")
    await converse(relay, tenant, "c")
    return commands(redis)
