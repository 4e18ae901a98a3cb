"""One worker looks after what is everybody's; another takes over when it is gone."""

import asyncio
import time

from support.relay import QUEUE, Relay, relay_on

from contract import redis_keys
from relay.maintainer import Maintainer


async def calls(relay: Relay) -> int:
    told = await relay.connection.command("INFO", "commandstats")
    return sum(int(each["calls"]) for each in told.values())


async def test_one_of_many_is_it(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        many = [Maintainer(relay.connection, f"w{at}") for at in range(5)]

        assert [await each.tend() for each in many] == [True, False, False, False, False]
        assert await many[0].tend()


async def test_another_takes_over_when_it_falls_silent(redis_url: str) -> None:
    async with relay_on(redis_url, reap_s=0.1) as relay:
        assert await Maintainer(relay.connection, "w1").tend()
        other, began = Maintainer(relay.connection, "w2"), time.monotonic()
        async with relay.reader.hear(redis_keys.MAINTAINER_CHANNEL) as ear, asyncio.timeout(5):
            while not await other.tend():
                await other.vacant(ear)

        assert time.monotonic() - began >= 0.3


async def test_another_takes_over_at_once_when_it_leaves(redis_url: str) -> None:
    async with relay_on(redis_url, reap_s=60) as relay:
        one, other = (Maintainer(relay.connection, name) for name in ("w1", "w2"))
        await one.tend()
        async with relay.reader.hear(redis_keys.MAINTAINER_CHANNEL) as ear, asyncio.timeout(5):
            waiting = asyncio.create_task(other.vacant(ear))
            await asyncio.sleep(0)
            await one.resign()
            await waiting

            assert await other.tend()


async def test_a_look_at_a_hundred_idle_queues_costs_a_few_commands(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        for at in range(100):
            await relay.connection.command("ZADD", redis_keys.QUEUES, time.time(), f"b{at}.chat")
        maintainer = Maintainer(relay.connection, "w1")
        await maintainer.tend()
        before = await calls(relay)
        await maintainer.tend()
        await relay.leases.reap()
        await relay.audit.look()
        cost = await calls(relay) - before - 1  # the question itself

        assert cost <= 20


async def test_what_waits_in_one_of_many_queues_is_woken(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        for at in range(150):
            await relay.connection.command("ZADD", redis_keys.QUEUES, time.time(), f"b{at}.chat")
        await relay.enqueue()
        await relay.connection.command("DEL", QUEUE)
        await relay.leases.reap()

        assert await relay.connection.command("LLEN", QUEUE) == 1
