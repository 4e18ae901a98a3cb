"""Slots that wait for the next job of their queue."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import ClassVar

from support.relay import QUEUE, Relay, chat, relay_on

from contract import redis_keys
from relay.order import ClaimFilter
from workers.slots import IdleSlots, Slots

CHOOSY = ClaimFilter(warm=frozenset())
"""Of a worker that is woken, not assigned its jobs."""


@asynccontextmanager
async def idle_slots(
    redis_url: str, capacity: int = 3
) -> AsyncGenerator[tuple[Relay, IdleSlots, Slots]]:
    async with relay_on(redis_url) as relay:
        slots = Slots({QUEUE: capacity})
        idle = IdleSlots("w1", relay.claims, slots, relay.subscriber)
        listening = asyncio.create_task(idle.listen())
        try:
            async with asyncio.timeout(5):
                while capacity > 1 and not idle.with_this(QUEUE):
                    await asyncio.sleep(0.01)
            yield relay, idle, slots
        finally:
            listening.cancel()
            await asyncio.wait({listening})


async def end_of_a_job(relay: Relay, idle: IdleSlots, slots: Slots) -> bool:
    """What a worker's task does when its job has ended: claim, find nothing, wait."""
    with slots.one(QUEUE):
        await relay.claims.claim(QUEUE, "w1", CHOOSY, idle_slots=idle.with_this(QUEUE))
    return await idle.wait(QUEUE)


async def test_a_slot_waits_and_the_next_job_wakes_it(redis_url: str) -> None:
    async with idle_slots(redis_url) as (relay, idle, slots):
        waiting = asyncio.create_task(end_of_a_job(relay, idle, slots))
        async with asyncio.timeout(5):
            while not await relay.connection.command("EXISTS", redis_keys.idle(QUEUE)):
                await asyncio.sleep(0.01)
            await relay.queue.enqueue(chat(), queue=QUEUE)
            assert await waiting

        assert not await relay.claims.have_tickets([QUEUE])


async def test_a_slot_that_has_waited_a_second_is_no_longer_reported_as_idle(
    redis_url: str,
) -> None:
    async with idle_slots(redis_url) as (relay, idle, slots):
        assert not await end_of_a_job(relay, idle, slots)
        await relay.queue.enqueue(chat(), queue=QUEUE)

        assert await relay.claims.have_tickets([QUEUE])


async def test_one_slot_is_left_to_tickets(redis_url: str) -> None:
    async with idle_slots(redis_url, capacity=2) as (relay, idle, slots):
        first = asyncio.create_task(end_of_a_job(relay, idle, slots))
        second = asyncio.create_task(end_of_a_job(relay, idle, slots))
        done, _ = await asyncio.wait({first, second}, return_when=asyncio.FIRST_COMPLETED)

        assert len(done) == 1
        assert not done.pop().result()
        await asyncio.gather(first, second)


async def test_a_worker_with_one_slot_leaves_it_to_tickets(redis_url: str) -> None:
    async with idle_slots(redis_url, capacity=1) as (relay, idle, slots):
        assert not await end_of_a_job(relay, idle, slots)
        assert not await relay.connection.command("EXISTS", redis_keys.idle(QUEUE))


async def test_a_wake_up_that_finds_no_slot_becomes_a_ticket(redis_url: str) -> None:
    async with idle_slots(redis_url) as (relay, _, _):
        await relay.connection.command("PUBLISH", redis_keys.wake_channel("w1"), QUEUE)

        async with asyncio.timeout(5):
            while not await relay.claims.have_tickets([QUEUE]):
                await asyncio.sleep(0.01)


async def test_at_a_stop_every_wait_ends_at_once(redis_url: str) -> None:
    async with idle_slots(redis_url) as (relay, idle, slots):
        waiting = asyncio.create_task(end_of_a_job(relay, idle, slots))
        async with asyncio.timeout(5):
            while not await relay.connection.command("EXISTS", redis_keys.idle(QUEUE)):
                await asyncio.sleep(0.01)
        idle.close()

        async with asyncio.timeout(0.9):
            assert not await waiting
        assert not await idle.wait(QUEUE)


def test_a_queue_that_an_operator_cancelled_is_not_paused_when_its_job_ends() -> None:
    # It would stay paused after `add_consumer`.
    class Control:
        paused: ClassVar[list[str]] = []

        def is_cancelled(self, queue: str) -> bool:
            return bool(queue)

        def pause(self, queue: str) -> None:
            self.paused.append(queue)

        def resume(self, queue: str) -> None:
            assert queue

    slots = Slots({QUEUE: 1})
    control = Control()
    slots.control(control)  # type: ignore[arg-type]
    with slots.one(QUEUE):
        assert control.paused == [QUEUE]
        control.paused.clear()

    assert control.paused == []
    assert not slots.is_free(QUEUE)
