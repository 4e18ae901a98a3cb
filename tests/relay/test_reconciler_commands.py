"""What the maintainer asks of Redis does not grow with the jobs that wait, and finds what was lost.

Commands are counted, not time. Subjects: relay/reconciler.py, relay/leases.py.
"""

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

import pytest
from support.redis_server import RedisServer
from support.relay import Relay, chat, relay_on

from contract import redis_keys

MANY = 2_000
PASSES = 6
"""Enough to walk over all of MANY."""
MORE_A_PASS = 60
"""Commands, those inside scripts included, that jobs in two queues may cost beside none at all."""
ONE, OTHER = "one.chat", "other.chat"


@pytest.fixture
def redis_url(own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """Not the session's, whose commands are counted, too; jobs are looked at at once."""
    monkeypatch.setattr("relay.reconciler._SETTLED_S", -60.0)
    return own_redis.url


async def enqueue(relay: Relay, count: int, **fields: Any) -> dict[str, str]:
    """Put jobs into two queues in turn; returns their queues."""
    queues: dict[str, str] = {}
    for at in range(0, count, 100):
        for record, _ in await asyncio.gather(
            *(
                relay.queue.enqueue(chat(**fields), queue=(ONE, OTHER)[number % 2])
                for number in range(at, min(at + 100, count))
            )
        ):
            queues[record.id] = record.queue
    return queues


async def passes(relay: Relay, count: int = PASSES) -> int:
    """Run passes of the maintainer; returns how many jobs were restored."""
    restored = 0
    for _ in range(count):
        await relay.leases.reap()
        restored += await relay.reconciler.reconcile()
    return restored


async def cost(relay: Relay) -> int:
    """Commands of some passes."""
    before = await calls(relay)
    await passes(relay)
    return await calls(relay) - before - 1  # the question itself


async def calls(relay: Relay) -> int:
    told: Mapping[str, Mapping[str, int]] = await relay.connection.command("INFO", "commandstats")
    return sum(int(each["calls"]) for each in told.values())


async def lose(relay: Relay, queue: str, ids: Collection[str]) -> None:
    await relay.connection.command("HDEL", redis_keys.facts(queue), *ids)
    await relay.connection.command("ZREM", redis_keys.backlog(queue), *ids)


async def test_two_thousand_waiting_jobs_cost_few_commands_more_than_none(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        none = await cost(relay)
        await enqueue(relay, MANY)
        await passes(relay)  # tickets that are missing are pushed

        assert await cost(relay) <= none + PASSES * MORE_A_PASS


async def test_one_walk_finds_every_lost_job_among_many(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        queues = await enqueue(relay, MANY)
        lost = {queue: [id for id in queues if queues[id] == queue][::3] for queue in (ONE, OTHER)}
        for queue, ids in lost.items():
            await lose(relay, queue, ids)

        assert await passes(relay) == sum(map(len, lost.values()))
        for queue in (ONE, OTHER):
            assert await relay.connection.command("ZCARD", redis_keys.backlog(queue)) == MANY // 2


async def test_a_job_that_only_another_queue_knows_is_restored_to_its_own(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        queues = await enqueue(relay, 10)
        moved = [id for id in queues if queues[id] == ONE]
        await lose(relay, ONE, moved)
        for id in moved:
            await relay.connection.command("HSET", redis_keys.facts(OTHER), id, "{}")

        assert await passes(relay, 1) == len(moved)
        assert await relay.connection.command("HLEN", redis_keys.facts(ONE)) == len(moved)


async def test_a_damaged_queue_hides_no_lost_job_of_another(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        queues = await enqueue(relay, 100)
        await lose(relay, OTHER, [id for id in queues if queues[id] == OTHER])
        await relay.connection.command("SET", redis_keys.facts(ONE), "damaged")

        assert await relay.reconciler.reconcile() == len(queues) // 2
