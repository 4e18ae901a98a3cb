"""A job that is enqueued wakes a slot that waits for it, and else sends a ticket."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from support.relay import QUEUE, Relay, chat, relay_on

from contract import redis_keys
from relay.order import ClaimFilter

CHOOSY = ClaimFilter(warm=frozenset())
"""Of a worker that prefers jobs of loaded models: it claims, and is not assigned, its jobs."""


@asynccontextmanager
async def listening(relay: Relay, worker: str) -> AsyncGenerator[list[str]]:
    """The queues whose names are published to a worker, as they come."""
    heard: list[str] = []

    async def listen() -> None:
        async with relay.subscriber.subscribe(redis_keys.wake_channel(worker)) as subscription:
            subscription.catch_up()
            ready.set()
            while await subscription.wait(30):
                heard.extend(message.decode() for message in subscription.take())

    ready = asyncio.Event()
    task = asyncio.create_task(listen())
    await ready.wait()
    try:
        yield heard
    finally:
        task.cancel()
        await asyncio.wait({task})


async def tickets(relay: Relay) -> int:
    return int(await relay.connection.command("LLEN", QUEUE))


async def test_a_job_wakes_an_idle_slot_and_sends_no_ticket(redis_url: str) -> None:
    async with relay_on(redis_url) as relay, listening(relay, "w1") as heard:
        assert await relay.claims.claim(QUEUE, "w1", CHOOSY, idle_slots=2) is None
        for _ in range(2):
            await relay.queue.enqueue(chat(), queue=QUEUE)
        assert await tickets(relay) == 0
        await relay.queue.enqueue(chat(), queue=QUEUE)
        assert await tickets(relay) == 1

        async with asyncio.timeout(5):
            while len(heard) < 2:
                await asyncio.sleep(0.01)
        assert heard == [QUEUE, QUEUE]


async def test_a_worker_that_does_not_listen_is_forgotten(redis_url: str) -> None:
    async with relay_on(redis_url) as relay, listening(relay, "w2"):
        await relay.claims.claim(QUEUE, "w1", CHOOSY, idle_slots=5)
        await relay.claims.claim(QUEUE, "w2", CHOOSY, idle_slots=2)
        await relay.queue.enqueue(chat(), queue=QUEUE)

        assert await tickets(relay) == 0
        idle = await relay.connection.command("ZRANGE", redis_keys.idle(QUEUE), 0, -1)
        assert idle == [b"w2"]


async def test_without_a_listener_a_job_sends_a_ticket(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await relay.claims.claim(QUEUE, "w1", CHOOSY, idle_slots=5)
        await relay.queue.enqueue(chat(), queue=QUEUE)

        assert await tickets(relay) == 1
        assert not await relay.connection.command("EXISTS", redis_keys.idle(QUEUE))


async def test_the_worker_with_most_idle_slots_is_woken(redis_url: str) -> None:
    async with (
        relay_on(redis_url) as relay,
        listening(relay, "few") as few,
        listening(relay, "many") as many,
    ):
        await relay.claims.claim(QUEUE, "few", CHOOSY, idle_slots=1)
        await relay.claims.claim(QUEUE, "many", CHOOSY, idle_slots=3)
        for _ in range(2):
            await relay.queue.enqueue(chat(), queue=QUEUE)
        async with asyncio.timeout(5):
            while len(many) < 2:
                await asyncio.sleep(0.01)

        assert few == []


async def test_idle_slots_are_not_noted_while_a_job_waits(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await relay.queue.enqueue(chat(), queue=QUEUE)
        assert await relay.claims.claim(QUEUE, "w1", CHOOSY, idle_slots=5) is not None

        assert not await relay.connection.command("EXISTS", redis_keys.idle(QUEUE))


@pytest.mark.parametrize("count", [0, 2])
async def test_a_worker_corrects_how_many_slots_wait(redis_url: str, count: int) -> None:
    async with relay_on(redis_url) as relay:
        await relay.claims.claim(QUEUE, "w1", CHOOSY, idle_slots=5)
        await relay.claims.set_idle_slots(QUEUE, "w1", count)
        key = redis_keys.idle(QUEUE)

        left = await relay.connection.command("ZSCORE", key, "w1")
        assert (left or 0) == count
        assert not count or 0 < await relay.connection.command("TTL", key) <= 60
