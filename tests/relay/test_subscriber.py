"""Half-open connections to Redis: packets are lost without an error."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from itertools import pairwise

import pytest
from support.proxy import Proxy, proxy_to
from support.redis_server import RedisServer
from support.relay import QUEUE, Relay, chat, relay_on, words
from support.shim import eventually

from contract.errors import RelayUnavailable
from relay.log import Log
from relay.subscriber import FOR_FOLLOWERS, Subscriber, Subscription, UpcomingJob

TIMEOUT_S = 0.4


@asynccontextmanager
async def two_relays(redis: RedisServer) -> AsyncGenerator[tuple[Relay, Proxy, Relay]]:
    """One behind a proxy, and one with a line of its own."""
    async with (
        proxy_to(redis.port) as proxy,
        relay_on(proxy.redis_url, command_timeout_s=TIMEOUT_S) as here,
        relay_on(redis.url) as there,
    ):
        yield here, proxy, there


async def hear_a_word(here: Relay, proxy: Proxy, there: Relay, *, is_cut: bool) -> None:
    """Follow a job to which an event is appended while the subscription is cut off."""
    job = await there.enqueue()
    async with aclosing(here.log.follow(job)) as following:
        heard = [*await anext(following)]
        proxy.swallow()
        if is_cut:
            proxy.cut()
            await asyncio.sleep(TIMEOUT_S / 2)
        proxy.heal()
        await there.run(await there.claim(), *words(1))
        async with asyncio.timeout(6):
            while not heard[-1].is_last:
                heard += await anext(following)


async def test_a_listener_on_a_half_open_connection_is_replaced(redis_server: RedisServer) -> None:
    # open-webui #26779: a listener that died silently did nothing for anyone.
    async with two_relays(redis_server) as (here, proxy, there):
        began_at = time.monotonic()
        await hear_a_word(here, proxy, there, is_cut=False)

        assert time.monotonic() - began_at < 8 * TIMEOUT_S + 1


async def test_a_listener_that_connects_into_silence_tries_again(
    redis_server: RedisServer,
) -> None:
    async with two_relays(redis_server) as (here, proxy, there):
        began_at = time.monotonic()
        await hear_a_word(here, proxy, there, is_cut=True)

        assert time.monotonic() - began_at < 8 * TIMEOUT_S + 1


async def test_a_command_on_a_half_open_connection_is_sent_again(
    redis_server: RedisServer,
) -> None:
    async with two_relays(redis_server) as (here, proxy, _):
        await asyncio.gather(*(here.connection.ping() for _ in range(10)))
        proxy.swallow()
        proxy.heal()
        began_at = time.monotonic()
        await asyncio.gather(*(here.connection.ping() for _ in range(10)))
        await here.connection.ping()

        assert time.monotonic() - began_at < 3 * TIMEOUT_S


async def test_no_call_waits_long_for_a_redis_that_never_replies(redis_server: RedisServer) -> None:
    async with two_relays(redis_server) as (here, proxy, _):
        await here.connection.ping()
        proxy.swallow()
        began_at = time.monotonic()
        with pytest.raises(RelayUnavailable):
            await here.connection.run("return 1")

        assert time.monotonic() - began_at < 4 * TIMEOUT_S


async def test_scripts_that_are_forgotten_all_the_time_run_all_the_same(
    redis_server: RedisServer,
) -> None:
    async def forget() -> None:
        while True:
            await relay.connection.command("SCRIPT", "FLUSH")

    async with relay_on(redis_server.url) as relay:
        forgetting = [asyncio.create_task(forget()) for _ in range(4)]
        answers = [await relay.connection.run(f"return {n}") for n in range(300)]
        for task in forgetting:
            task.cancel()
        await asyncio.wait(forgetting)

        assert list(range(300)) == answers


@pytest.mark.parametrize(
    ("messages", "fits"),
    [
        ([b"x"] * 512, True),
        ([b"x"] * 513, False),
        ([b"x" * 2**20], True),
        ([b"x" * 2**17] * 3, False),
    ],
    ids=["many", "too many", "one that is large", "too many bytes"],
)
def test_a_buffer_is_bounded_by_messages_and_bytes(messages: list[bytes], *, fits: bool) -> None:
    # A follower that does not read must not hold the answer in memory: the log has it.
    subscription = Subscription()
    subscription.catch_up()
    for message in messages:
        subscription.receive(message)

    assert subscription.behind is not fits
    assert subscription.take() == (messages if fits else [])


@asynccontextmanager
async def expecting(url: str) -> AsyncGenerator[tuple[Relay, Subscriber]]:
    """A process that follows the jobs that it enqueues."""
    async with relay_on(url) as relay:
        subscriber = Subscriber(relay.connection, expects_jobs=True)
        listening = asyncio.create_task(subscriber.listen())
        try:
            await eventually(lambda: not subscriber.expect().subscription.behind)
            yield relay, subscriber
        finally:
            listening.cancel()


async def run_expected(relay: Relay, job: UpcomingJob) -> None:
    """Enqueue the job and run it to its end."""
    await relay.queue.enqueue(chat(), queue=QUEUE, new_job_id=job.job_id)
    await relay.run(await relay.claim(), *words(2))


async def heard(relay: Relay, subscriber: Subscriber, job: UpcomingJob) -> list[str]:
    async with asyncio.timeout(5):
        pages = Log(relay.connection, subscriber).follow_expected(job)
        return [str(frame.id) async for frames in pages for frame in frames]


EVERY = ["1-0", "1-1", "1-2", "1-3", "1-4"]


async def test_the_events_of_an_expected_job_come_without_a_command(own_redis: RedisServer) -> None:
    async with expecting(own_redis.url) as (relay, subscriber):
        job = subscriber.expect()
        await run_expected(relay, job)
        events = await heard(relay, subscriber, job)
        stats = await relay.connection.command("INFO", "commandstats")

    assert events == EVERY
    assert not {"cmdstat_subscribe", "cmdstat_unsubscribe", "cmdstat_xrange"} & stats.keys()


async def test_a_missed_event_of_an_expected_job_is_read_from_the_log(redis_url: str) -> None:
    async with expecting(redis_url) as (relay, subscriber):
        job = subscriber.expect()
        await run_expected(relay, job)
        await eventually(lambda: len(job.subscription.messages) > 2)
        del job.subscription.messages[1]

        assert await heard(relay, subscriber, job) == EVERY


async def test_an_expected_job_is_followed_after_a_lost_connection(
    redis_server: RedisServer,
) -> None:
    async with two_relays(redis_server) as (here, proxy, there):
        subscriber = Subscriber(here.connection, expects_jobs=True)
        listening = asyncio.create_task(subscriber.listen())
        await eventually(lambda: not subscriber.expect().subscription.behind)
        job = subscriber.expect()
        proxy.cut()
        await eventually(lambda: job.subscription.behind)
        during_the_outage = subscriber.expect()
        for each in (job, during_the_outage):
            await run_expected(there, each)

            assert await heard(there, subscriber, each) == EVERY
        listening.cancel()


async def test_an_expected_job_that_nobody_reads_is_forgotten(redis_url: str) -> None:
    async with expecting(redis_url) as (_, subscriber):
        kept = [subscriber.expect() for _ in range(3)]
        channels = subscriber.count
        del kept

        assert (channels, subscriber.count) == (3, 0)


@pytest.mark.parametrize(("at_once", "most"), [(FOR_FOLLOWERS, 4), (256, 260)])
async def test_a_burst_of_messages_leaves_turns_to_the_rest_of_the_process(
    own_redis: RedisServer, at_once: int, most: int
) -> None:
    """A crowded worker publishes hundreds together; an enqueue waits for few of them.

    A worker gets its jobs this way, and takes all of them at once.
    """
    messages = 400
    async with relay_on(own_redis.url) as relay:
        subscriber = Subscriber(relay.connection, at_once=at_once)
        listening = asyncio.create_task(subscriber.listen())
        async with subscriber.subscribe("burst") as subscription:
            subscription.catch_up()

            script = f"for i = 1, {messages} do redis.call('PUBLISH', KEYS[1], i) end"
            publishing = asyncio.create_task(relay.connection.command("EVAL", script, 1, "burst"))
            seen = [0]
            async with asyncio.timeout(5):
                while seen[-1] < messages:
                    await asyncio.sleep(0)
                    seen.append(len(subscription.messages))
            await publishing
        listening.cancel()

    assert max(after - before for before, after in pairwise(seen)) <= most
    assert len([step for step in pairwise(seen) if step[0] != step[1]]) >= messages / most


async def test_a_message_of_very_many_followers_leaves_turns_between_them(redis_url: str) -> None:
    """Subject: relay/subscriber.py. All of them get all messages, in their order."""
    woken: list[int] = []
    turn = 0

    async def count_turns() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    async with relay_on(redis_url) as relay, AsyncExitStack() as stack:
        counting = asyncio.create_task(count_turns())
        entered = [relay.subscriber.subscribe("flood") for _ in range(500)]
        subscriptions = [await stack.enter_async_context(each) for each in entered]
        for each in subscriptions:
            each.catch_up()

        async def wait(subscription: Subscription) -> None:
            await subscription.wait(10)
            woken.append(turn)

        waiting = [asyncio.create_task(wait(each)) for each in subscriptions]
        await asyncio.sleep(0)
        for number in range(3):
            await relay.connection.command("PUBLISH", "flood", f"{number}")
        await asyncio.gather(*waiting)
        await eventually(lambda: all(len(each.messages) == 3 for each in subscriptions))
        counting.cancel()

    assert all(each.messages == [b"0", b"1", b"2"] for each in subscriptions)
    assert max(woken.count(each) for each in set(woken)) <= 64
