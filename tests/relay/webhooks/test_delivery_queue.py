"""Queues of deliveries: bounds, what is dropped, and what two processes do at once."""

import logging
from typing import Final

import pytest
from support.relay import Relay, chat, relay_on

from contract.webhooks.webhook_models import CALLBACKS
from relay.queue import Queue
from relay.webhooks.delivery_queue import DeliveryQueue, QueueLimits, TryOutcome
from relay.webhooks.receivers import OutboxEntry, Receiver, Routed, StoredDelivery

HOOK: Final = Receiver("default", "wh_1", "wh_1")
OTHER: Final = Receiver("default", "wh_2", "wh_2")
URL: Final = Receiver.of_url("default", "http://example.com")


async def ended(relay: Relay, count: int) -> list[OutboxEntry]:
    """Entries of the outbox, of so many jobs that ended."""
    queue = Queue(relay.connection, lambda _: True)
    for _ in range(count):
        await queue.enqueue(chat(), queue="scripted.chat")
        await relay.run(await relay.claim())
    return await DeliveryQueue(relay.connection, QueueLimits(9, 9)).outbox(100)


def delivery(number: int) -> StoredDelivery:
    return StoredDelivery(
        id=f"evt_{number:032}", type="job.done", subject=str(number), at=float(number),
        webhook="wh_1", body="{}",
    )  # fmt: skip


async def test_an_entry_is_routed_once_whoever_does_it(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        entries = await ended(relay, 1)
        one, two = (DeliveryQueue(relay.connection, QueueLimits(9, 9)) for _ in range(2))
        for queue in (one, two):
            await queue.route([(entries[0], [Routed(HOOK, delivery(1))])])
        waiting = await one.waiting(HOOK, 9)

        assert [each.id for each in waiting] == [delivery(1).id]
        assert await one.outbox(9) == []


async def test_a_full_queue_drops_what_comes_and_lists_it(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        entries = await ended(relay, 4)
        queue = DeliveryQueue(relay.connection, QueueLimits(receiver=2, tenant=3))
        routed = [(entry, [Routed(HOOK, delivery(at))]) for at, entry in enumerate(entries[:3])]
        dropped = await queue.route([*routed, (entries[3], [Routed(OTHER, delivery(9))])])
        over = await queue.put_again(OTHER, [delivery(5)])
        listed = [shown for _, shown in await queue.ended(HOOK)]

        assert dropped == [0, 0, 1, 0]
        assert over == (0, 1)
        assert [(each.subject, each.state) for each in listed] == [("2", "dropped")]
        assert "2 deliveries waited" in listed[0].error


async def test_only_the_first_delivery_is_settled_and_the_next_is_due_then(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        entries = await ended(relay, 2)
        queue = DeliveryQueue(relay.connection, QueueLimits(9, 9))
        await queue.route([(e, [Routed(HOOK, delivery(at))]) for at, e in enumerate(entries)])
        first = await queue.first(HOOK)
        assert first is not None
        retried = await queue.settle(first, TryOutcome("retry", 503, "busy", queue.now + 60))
        later = await queue.due(9, 9)
        again = await queue.first(HOOK)
        assert again is not None
        done = [
            await queue.settle(again, TryOutcome("delivered", 200, "", queue.now)) for _ in range(2)
        ]
        now = await queue.due(9, 9)
        last = await queue.first(HOOK)

        assert (retried, again.tries, again.state.error) == (True, 1, "busy")
        assert (dict(later.lanes), 50 < (later.next_s or 0) <= 60) == ({}, True)
        assert done == [True, False]  # the reply to the first may have been lost
        assert [list(names) for names in now.lanes.values()] == [[HOOK]]
        assert last is not None
        assert (last.delivery.subject, last.state.failures) == ("1", 0)


async def test_what_comes_while_an_empty_queue_is_looked_at_stays(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        queue = DeliveryQueue(relay.connection, QueueLimits(9, 9))
        await queue.put_again(HOOK, [delivery(1)])
        await relay.connection.command("DEL", HOOK.keys[0])
        assert await queue.first(HOOK) is None
        gone = await queue.due(9, 9)
        await relay.connection.command("XADD", HOOK.keys[0], "*", "d", "{")
        await queue.put_again(HOOK, [delivery(2)])
        assert await queue.first(HOOK) is None  # which takes the unreadable one out
        first = await queue.first(HOOK)

        assert dict(gone.lanes) == {}
        assert first is not None
        assert first.delivery == delivery(2)


async def test_callbacks_have_a_lane_of_their_own(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        queue = DeliveryQueue(relay.connection, QueueLimits(9, 9))
        for receiver in (URL, HOOK):
            await queue.put_again(receiver, [delivery(1)])
        due = await queue.due(9, 9)
        cleared = [await queue.clear(each, "why") for each in (URL, HOOK)]
        left = await relay.connection.command(
            "EXISTS", "fleet:webhooks:due", "fleet:webhooks:waiting"
        )

        assert URL.webhook == CALLBACKS
        assert {lane: list(names) for lane, names in due.lanes.items()} == {
            "default/callbacks": [URL], "default/webhooks": [HOOK],
        }  # fmt: skip
        assert (cleared, left) == ([1, 1], 0)


async def test_what_waits_for_its_next_try_can_be_tried_now(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        queue = DeliveryQueue(relay.connection, QueueLimits(9, 9))
        idle = await queue.hasten(HOOK)
        await queue.put_again(HOOK, [delivery(1)])
        first = await queue.first(HOOK)
        assert first is not None
        await queue.settle(first, TryOutcome("retry", 503, "busy", queue.now + 3600))
        waits = await queue.hasten(HOOK)
        now = await queue.due(9, 9)
        again = await queue.first(HOOK)

        assert (idle, waits) == (False, True)
        assert [list(names) for names in now.lanes.values()] == [[HOOK]]
        assert again is not None
        assert (again.tries, again.state.failures, again.state.error) == (1, 0, "busy")


async def test_as_many_addresses_of_requests_as_deliveries_of_one_may_wait(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        entries = await ended(relay, 4)
        queue = DeliveryQueue(relay.connection, QueueLimits(2, 9))
        to = [Receiver.of_url("default", f"https://example.com/{at}") for at in (0, 1, 2, 0)]
        dropped = await queue.route(
            [(e, [Routed(to[at], delivery(at))]) for at, e in enumerate(entries)]
        )
        (listed, *_), states = await queue.ended(URL), []
        for receiver in to[:2]:
            first = await queue.first(receiver)
            assert first is not None
            await queue.settle(first, TryOutcome("failed", 503, "busy", queue.now))
            states.append(await relay.connection.command("TTL", receiver.keys[1]))

        assert dropped == [0, 0, 1, 0]
        assert listed[1].error == "deliveries waited for 2 other receivers of its tenant"
        assert all(3600 < each <= 7200 for each in states)  # longer than the longest pause


@pytest.mark.parametrize(
    "name",
    [b"nan", b"", b"\xff\xfe", b"other/wh_1", b"default/\xff", b"default/cb_1", b"/", b"a/b/c"],
)
@pytest.mark.parametrize("score", ["-inf", "0"])
async def test_what_is_no_receiver_of_its_lane_leaves_it(
    redis_url: str, name: bytes, score: str, caplog: pytest.LogCaptureFixture
) -> None:
    # It was due at once, again and again: 30,000 commands a second.
    caplog.set_level(logging.WARNING, "relay.connection")
    async with relay_on(redis_url) as relay:
        queue, key = DeliveryQueue(relay.connection, QueueLimits(9, 9)), HOOK.keys[3]
        await queue.put_again(HOOK, [delivery(1)])
        await relay.connection.command("ZADD", key, score, name)
        found = [await queue.due(9, 9) for _ in range(2)]
        left = await relay.connection.command("ZRANGE", key, 0, -1)

    assert [dict(each.lanes) for each in found] == [{"default/webhooks": [HOOK]}] * 2
    assert left == [HOOK.name.encode()]
    assert key in caplog.text
