"""Messages of conversations: their addresses, and what a second one does.

Subjects: relay/admission/turn_admission.py, relay/scripts/turn_scripts.py, relay/claims.py.
"""

import asyncio
from typing import Any

import pytest
from support.relay import QUEUE, Relay, chat, relay_on

from contract import redis_keys
from contract.conversations import conversation_id
from contract.errors import ConversationBusy, QueueFull
from contract.events import Done
from contract.tenants import DEFAULT_TENANT, Tenant
from relay.claims import Claim, StartedJob, assigned
from relay.idempotency import Key, KeyTimes
from relay.leases import Holder
from relay.order import ClaimFilter
from relay.queue import Once
from relay.scripts.turn_scripts import report

A, B = frozenset({"address-a"}), frozenset({"address-b"})


async def enqueue(relay: Relay, conversation: str | None = "c", **fields: Any) -> str:
    request = chat(conversation=conversation, **fields)
    record, _ = await relay.queue.enqueue(request, queue=QUEUE)
    return record.id


async def works(relay: Relay, worker: str, address: str, *, is_up: bool = True) -> None:
    await relay.connection.call(report(QUEUE, worker, 15, 15, {address: is_up}))


async def claim(
    relay: Relay, worker: str, here: frozenset[str] | None, again: list[float] | None = None
) -> Claim | None:
    told = [].append if again is None else again.append
    return await relay.claims.claim(QUEUE, worker, ClaimFilter(here=here), again=told)


async def begin(relay: Relay, worker: str, here: frozenset[str]) -> StartedJob:
    claimed = await claim(relay, worker, here)
    assert claimed is not None
    job = await relay.claims.start(claimed, home=next(iter(here)))
    assert job is not None
    return job


async def end(relay: Relay, job: StartedJob, worker: str) -> None:
    log = relay.attempt_log(job)
    log.append(Done())
    await log.flush()
    await relay.leases.release(QUEUE, job.record.id, Holder(job.attempt, worker))


async def ran_at_a(relay: Relay, conversation: str = "c") -> None:
    """One message of the conversation has run at address a, and both addresses work."""
    await works(relay, "w1", "address-a")
    await works(relay, "w2", "address-b")
    await enqueue(relay, conversation)
    await end(relay, await begin(relay, "w1", A), "w1")


async def test_a_message_is_left_to_the_address_of_its_conversation(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await ran_at_a(relay)
        job_id = await enqueue(relay)
        again: list[float] = []

        assert await claim(relay, "w2", B, again) is None
        assert 0 < again[0] <= 10
        claimed = await claim(relay, "w1", A)
        assert claimed is not None
        assert (claimed.job_id, claimed.home) == (job_id, "address-a")


async def test_it_is_left_no_longer_than_the_patience_and_moves_once(redis_url: str) -> None:
    async with relay_on(redis_url, conversation_patience_s=0.2) as relay:
        await ran_at_a(relay)
        await enqueue(relay)
        assert await claim(relay, "w2", B) is None
        await asyncio.sleep(0.25)
        await end(relay, await begin(relay, "w2", B), "w2")
        await enqueue(relay)

        assert await claim(relay, "w1", A) is None
        assert await claim(relay, "w2", B) is not None


async def test_others_go_before_a_message_that_is_left(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await ran_at_a(relay)
        for _ in range(70):
            await enqueue(relay)
        other = await enqueue(relay, None)
        claimed = await claim(relay, "w2", B)

        assert claimed is not None
        assert claimed.job_id == other


async def test_nobody_waits_for_an_address_that_is_down_or_silent(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await ran_at_a(relay)
        await works(relay, "w1", "address-a", is_up=False)
        await enqueue(relay)

        claimed = await claim(relay, "w2", B)
        assert claimed is not None


async def test_a_worker_that_knows_no_addresses_takes_any_message(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await ran_at_a(relay)
        await enqueue(relay)

        assert await claim(relay, "w2", None) is not None


async def test_conversations_of_two_tenants_are_two(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await ran_at_a(relay)
        await relay.queue.enqueue(chat(conversation="c"), queue=QUEUE, tenant=Tenant(name="other"))

        assert await claim(relay, "w2", B) is not None


async def test_a_message_is_assigned_to_the_idle_worker_of_its_address(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await ran_at_a(relay)
        subscribe, channel = relay.subscriber.subscribe, redis_keys.wake_channel
        async with subscribe(channel("w1")) as messages, subscribe(channel("w2")):
            messages.catch_up()
            for worker, slots in (("w1", 1), ("w2", 9)):
                assert await relay.claims.claim(QUEUE, worker, idle_slots=slots) is None
            job_id = await enqueue(relay)
            await messages.wait(5)
            claimed = assigned(messages.take()[0], "w1")

        assert isinstance(claimed, Claim)
        assert claimed.job_id == job_id
        assert claimed.model == "m"
        assert claimed.home == "address-a"
        assert claimed.conversation == conversation_id(DEFAULT_TENANT.name, "c")


async def test_the_busy_worker_of_its_address_is_told(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await ran_at_a(relay)
        subscribe, channel = relay.subscriber.subscribe, redis_keys.wake_channel
        async with subscribe(channel("w1")) as messages, subscribe(channel("w2")):
            messages.catch_up()
            assert await relay.claims.claim(QUEUE, "w2", idle_slots=9) is None
            await enqueue(relay)
            await messages.wait(5)

            assert messages.take() == [QUEUE.encode()]


async def test_forgotten_conversations_leave_no_trace(redis_url: str) -> None:
    async with relay_on(redis_url, conversations_kept=3) as relay:
        for number in range(9):
            await enqueue(relay, f"c{number}")
            await end(relay, await begin(relay, "w1", A), "w1")
        command = relay.connection.command

        assert await command("HLEN", redis_keys.homes(QUEUE)) == 3
        assert await command("ZCARD", redis_keys.homes_used(QUEUE)) == 3
        assert 0 < await command("TTL", redis_keys.homes(QUEUE)) <= 3600


async def test_two_workers_of_one_address_are_seen(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        first = await relay.connection.call(report(QUEUE, "w1", 15, 15, {"x": True, "y": True}))
        second = await relay.connection.call(report(QUEUE, "w2", 15, 15, {"x": True}))

        assert (first, second) == (set(), {"x"})


async def test_queue_runs_messages_one_after_another_on_any_worker(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        ids = [await enqueue(relay, conversation_policy="queue") for _ in range(3)]
        first = await begin(relay, "w1", A)
        again: list[float] = []
        assert await claim(relay, "w2", None, again) is None
        assert again == [1.0]
        await end(relay, first, "w1")
        second = await begin(relay, "w1", A)
        assert await claim(relay, "w1", A) is None

        assert [first.record.id, second.record.id] == ids[:2]


async def test_queue_tells_what_it_waits_for(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        first = await enqueue(relay)
        request = chat(conversation="c", conversation_policy="queue")
        record, place = await relay.queue.enqueue(request, queue=QUEUE)
        later = await relay.queue.positions.place(record)
        await relay.queue.cancel(first, by="caller")
        then = await relay.queue.positions.place(record)

        assert f"job {first} of its conversation has not ended" in place.reason
        assert later.reason == place.reason
        assert then.reason == "next in line"


async def test_queue_goes_on_when_the_one_before_is_cancelled_or_fails(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        _, waiting, last = [
            await enqueue(relay, conversation_policy="queue", max_attempts=1) for _ in range(3)
        ]
        first = await begin(relay, "w1", A)
        await relay.queue.cancel(waiting, by="caller")
        assert await claim(relay, "w1", A) is None, "the first one still runs"
        # Its worker dies, and it has no attempt left.
        await relay.leases.release_worker("w1")

        assert (await relay.records.get(first.record.id)).status == "failed"
        assert (await begin(relay, "w2", B)).record.id == last


async def test_no_message_waits_for_the_address_of_a_worker_that_is_dead(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await ran_at_a(relay)
        await works(relay, "w2", "address-b")
        await enqueue(relay)
        for_home = await claim(relay, "w2", B)
        await relay.leases.release_worker("w1")
        freed = await claim(relay, "w2", B)

        assert for_home is None
        assert freed is not None


async def test_an_address_that_another_worker_serves_too_outlives_a_death(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await ran_at_a(relay)
        await works(relay, "w2", "address-a")
        await relay.leases.release_worker("w1")
        await enqueue(relay)

        assert await claim(relay, "w3", B) is None


async def test_reject_refuses_a_message_while_another_has_not_ended(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        first = await enqueue(relay, conversation_policy="reject")
        with pytest.raises(ConversationBusy, match=first):
            await enqueue(relay, conversation_policy="reject")
        await end(relay, await begin(relay, "w1", A), "w1")

        await enqueue(relay, conversation_policy="reject")


async def test_interrupt_cancels_every_message_before(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        running, waiting = [await enqueue(relay) for _ in range(2)]
        await begin(relay, "w1", A)
        last = await enqueue(relay, conversation_policy="interrupt")
        statuses = [(await relay.records.get(id)).status for id in (running, waiting, last)]

        assert statuses == ["cancelled", "cancelled", "queued"]
        assert (await relay.frames(running))[-1].type == "cancelled"


async def test_a_message_for_which_the_queue_has_no_room_interrupts_nothing(
    redis_url: str,
) -> None:
    async with relay_on(redis_url, queue_limit=1) as relay:
        first = await enqueue(relay)
        with pytest.raises(QueueFull):
            await enqueue(relay, conversation_policy="interrupt")

        assert (await relay.records.get(first)).status == "queued"


async def test_the_setting_is_for_requests_that_say_nothing_but_not_for_batches(
    redis_url: str,
) -> None:
    async with relay_on(redis_url, conversation_policy="reject") as relay:
        await enqueue(relay)
        with pytest.raises(ConversationBusy):
            await enqueue(relay)

        await enqueue(relay, conversation_policy="parallel")
        await enqueue(relay, priority="batch")


async def test_a_repeated_idempotency_key_is_the_same_message(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        request = chat(conversation="c", conversation_policy="reject")
        key = Key.of(DEFAULT_TENANT.name, "k", request)

        async def send(job_id: str) -> Any:
            once = Once(job_id, key, KeyTimes(60, 30))
            return await relay.queue.enqueue_once(request, once, queue=QUEUE, tenant=DEFAULT_TENANT)

        record, _ = await send("a" * 32)
        held = await send("b" * 32)

        assert (held.job_id, held.state) == (record.id, 0)


async def test_the_list_of_messages_stays_short(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        for _ in range(40):
            await enqueue(relay)
            await end(relay, await begin(relay, "w1", A), "w1")
        turns = redis_keys.turns(conversation_id(DEFAULT_TENANT.name, "c"))

        assert await relay.connection.command("LLEN", turns) <= 16
        assert await relay.connection.command("TTL", turns) > 0


async def test_a_conversation_is_forgotten_after_the_last_deadline_of_its_messages(
    redis_url: str,
) -> None:
    # It was kept for a day more: a flood of conversations of one message each stayed in Redis
    # when room was made of their jobs.
    async with relay_on(redis_url) as relay:
        turns, left = redis_keys.turns(conversation_id(DEFAULT_TENANT.name, "c")), []
        for deadline_s in (600, 7200, 600):
            request = chat(conversation="c", deadline_s=deadline_s)
            await relay.queue.enqueue(request, queue=QUEUE, tenant=DEFAULT_TENANT)
            left.append(await relay.connection.command("TTL", turns))

    assert 600 + 3500 < left[0] <= 600 + 3600
    assert [7200 + 3500 < each <= 7200 + 3600 for each in left[1:]] == [True, True]
