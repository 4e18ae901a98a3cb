"""In a Redis whose memory is full the maintainer's pass, which makes room, goes to its end.

Workers keep what they have there.

Subjects: relay/reconciler.py, relay/aliases/moves.py, relay/usage/limits.py, relay/model_leases.py.
"""

import asyncio

import pytest
from support.redis_server import RedisServer
from support.relay import QUEUE, Relay, chat, relay_on
from support.shim import Stage

from contract import redis_keys
from contract.errors import RelayFull
from contract.requests import AliasTarget, Route
from relay.model_leases import ModelLeases

MIB = 2**20
ROUTE = Route(
    alias="fast",
    targets=(
        AliasTarget(model="m1", backend="one", wait_s=0),
        AliasTarget(model="m2", backend="two", wait_s=0),
    ),
)


async def fill(relay: Relay, server: RedisServer) -> None:
    await relay.connection.command("SET", "ballast", b"x" * (2 * MIB))
    server.say("CONFIG", "SET", "maxmemory", str(MIB))
    assert server.say("SET", "more", "1").startswith(b"-OOM")


async def test_a_job_moves_to_the_next_target_of_its_alias(own_redis: RedisServer) -> None:
    async with relay_on(own_redis.url) as relay, asyncio.timeout(20):
        record, _ = await relay.queue.enqueue(chat(route=ROUTE), queue="one.chat")
        stays, _ = await relay.queue.enqueue(chat(route=ROUTE), queue="one.chat")
        assert await relay.start_next("one.chat", "w1") is not None
        await Stage(None, relay).announce("two")  # type: ignore[arg-type]
        await fill(relay, own_redis)
        await relay.reconciler.reconcile()
        started = await relay.start_next("two.chat", "w2")

    assert started is not None
    assert started.record.id in {record.id, stays.id}


async def test_what_is_reserved_for_a_job_that_waits_keeps_no_other_job_lost(
    own_redis: RedisServer,
) -> None:
    async with relay_on(own_redis.url) as relay:
        waiting, lost = await relay.enqueue(), await relay.enqueue()
        now = relay.connection.now()
        await relay.connection.pipeline(
            [
                ("ZADD", redis_keys.RESERVING, now - 1, f"default {waiting}"),
                ("ZADD", redis_keys.LIVE, now - 60, lost),
                ("DEL", redis_keys.backlog(QUEUE), redis_keys.facts(QUEUE)),
            ]
        )
        await fill(relay, own_redis)
        restored = await relay.reconciler.reconcile()
        checked_at = await relay.connection.command(
            "ZSCORE", redis_keys.RESERVING, f"default {waiting}"
        )

    assert restored == 1
    assert float(checked_at) > now


async def test_a_worker_keeps_the_model_that_it_has_in_its_memory(own_redis: RedisServer) -> None:
    async with relay_on(own_redis.url, lease_s=0.3, renew_s=0.1) as relay:
        leases = ModelLeases(relay.connection, "llama", "w1")
        await leases.claim("tiny", lambda: None)
        await fill(relay, own_redis)
        await asyncio.sleep(1)
        owner = await relay.connection.command(
            "HGET", redis_keys.residence("llama", "tiny"), "owner"
        )
        await leases.release("tiny")

    assert owner == b"w1"


async def test_a_worker_that_starts_is_on_the_roster(own_redis: RedisServer) -> None:
    async with relay_on(own_redis.url) as relay:
        await fill(relay, own_redis)
        told = await Stage(None, relay).announce("two")  # type: ignore[arg-type]
        workers, _ = await relay.roster.read()
        queues = await relay.connection.command("ZCARD", redis_keys.KNOWN)

    assert [each.name for each in workers] == [told.name]
    assert queues == len(told.queues)


async def test_a_job_that_is_refused_leaves_nothing_in_its_queue(own_redis: RedisServer) -> None:
    async with relay_on(own_redis.url) as relay:
        await fill(relay, own_redis)
        with pytest.raises(RelayFull):
            await relay.enqueue()
        facts = await relay.connection.command("EXISTS", redis_keys.facts(QUEUE))
        calls = await relay.connection.command("INFO", "commandstats")

    assert facts == 0
    assert "cmdstat_hset" not in calls
