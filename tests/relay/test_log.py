"""The log: late, concurrent, slow and returning followers all receive the same events."""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest
from support.redis_server import RedisServer
from support.relay import QUEUE, relay_on, words
from support.shim import eventually, followers

from contract import redis_keys
from contract.errors import JobNotFound, LeaseLost
from contract.events import (
    Cursor,
    Delta,
    Done,
    EventId,
    Frame,
    to_entry,
)
from relay.compaction import large_frames, log_reader
from relay.scripts import jobs
from relay.subscriber import Subscription


def types(frames: list[Frame]) -> list[str]:
    return [frame.type for frame in frames]


async def test_a_late_subscriber_receives_everything(redis_url: str) -> None:
    # Hatchet, Inngest: events before the first subscription are dropped, by design.
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue()
        await relay.run(await relay.claim(), *words(3))

        assert types(await relay.frames(job)) == [
            "queued",
            "started",
            "delta",
            "delta",
            "delta",
            "done",
        ]


async def test_fifty_subscribers_receive_the_same(redis_url: str) -> None:
    # batch-gateway #644: two replicas that share one list of results take them from each other.
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue()
        followers = [asyncio.create_task(relay.frames(job)) for _ in range(50)]
        claim = await relay.claim()
        attempt_log = relay.attempt_log(claim)
        for word in words(200):
            attempt_log.append(word)
            await asyncio.sleep(0)
        attempt_log.append(Done())
        views = await asyncio.gather(*followers)

        assert len(views[0]) == 203
        assert [views[0]] * 50 == views


async def test_a_follower_who_returns_with_any_cursor_misses_and_doubles_nothing(
    redis_url: str,
) -> None:
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue()
        await relay.run(await relay.claim(), *words(40))
        whole = await relay.frames(job)

        for at, frame in enumerate(whole):
            assert whole[at + 1 :] == await relay.frames(job, after=frame.id)


async def test_events_that_are_appended_at_once_are_one_entry_with_all_their_cursors(
    redis_url: str,
) -> None:
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue()
        await relay.run(await relay.claim(), *words(40))
        whole = await relay.frames(job)

        assert [frame.id for frame in whole[2:]] == [EventId(1, seq) for seq in range(2, 43)]
        assert await relay.connection.command("XLEN", redis_keys.log(job)) < 10
        for frame in whole:
            assert frame.id is not None
            assert not await relay.log.is_at_its_end(job, Cursor(frame.id)) or frame.is_last
        reset = await relay.frames(job, after=EventId(1, 99))
        assert types(reset)[0] == "log_reset"


async def test_an_append_whose_reply_was_lost_is_written_once(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue()
        claim = await relay.claim()
        frames = [Frame.of(EventId(1, 2 + at), 1.0, word) for at, word in enumerate(words(3))]
        call = jobs.append(
            [
                (
                    jobs.keys_of(job),
                    jobs.NewFrames(
                        job, redis_keys.channel(job), claim.record.nonce or "", claim.length,
                        "1-4", to_entry([frame.to_wire() for frame in frames]), "",
                    ),
                )
            ],
            60,
            10,
        )  # fmt: skip
        assert await relay.connection.call(call) == [jobs.WRITTEN]
        assert await relay.connection.call(call) == [jobs.WRITTEN]

        pages = [page async for page in relay.log.read(job)]
        assert [frame for page in pages for frame in page][2:] == frames


async def test_a_follower_on_another_connection_continues_where_the_first_stopped(
    redis_url: str,
) -> None:
    # LocalAI #10993: resume works on the replica that owns the stream, and on no other.
    async with relay_on(redis_url) as relay, relay_on(redis_url) as other:
        job = await relay.enqueue()
        attempt_log = relay.attempt_log(await relay.claim())
        first: list[Frame] = []
        async with aclosing(relay.log.follow(job)) as pages:
            attempt_log.append(Delta(content="one"))
            async for frames in pages:
                first += frames
                if frames[-1].type == "delta":
                    break
        attempt_log.append(Delta(content="two"))
        attempt_log.append(Done())
        rest = await other.frames(job, after=first[-1].id)

        assert types(first + rest) == ["queued", "started", "delta", "delta", "done"]


async def test_a_follower_that_does_not_read_falls_back_to_the_log(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue()
        attempt_log = relay.attempt_log(await relay.claim())
        async with aclosing(relay.log.follow(job)) as slow:
            heard = list(await anext(slow))
            for word in words(3000):
                attempt_log.append(word)
                await attempt_log.wait_for_room()
            attempt_log.append(Done())
            await attempt_log.flush()
            async for frames in slow:
                heard += frames

        assert "".join(w.content or "" for w in words(3000)) == "".join(
            frame.event.content for frame in heard if isinstance(frame.event, Delta)
        )
        assert sorted(heard, key=lambda frame: frame.id) == heard


async def test_a_gap_on_the_channel_is_read_from_the_log(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive, lost = Subscription.receive, []

    def drop_first(subscription: Subscription, message: bytes) -> None:
        if b"lost" in message and not lost:
            lost.append(message)
        else:
            receive(subscription, message)

    monkeypatch.setattr(Subscription, "receive", drop_first)
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue()
        follower = asyncio.create_task(relay.frames(job))
        attempt_log = relay.attempt_log(await relay.claim())
        for text in ("a", "lost", "b"):
            attempt_log.append(Delta(content=text))
            await attempt_log.flush()
        attempt_log.append(Done())
        frames = await follower

        assert lost
        assert [f.event.content for f in frames if f.type == "delta"] == ["a", "lost", "b"]


async def test_events_during_a_lost_subscription_are_received(own_redis: RedisServer) -> None:
    async with relay_on(own_redis.url) as here, relay_on(own_redis.url) as there:
        job = await there.enqueue()
        follower = asyncio.create_task(here.frames(job))
        for _ in range(8):
            claim = await there.claim()
            attempt_log = there.attempt_log(claim)
            attempt_log.append(Delta(content="before"))
            await attempt_log.flush()
            own_redis.say("CLIENT", "KILL", "TYPE", "pubsub")
            await asyncio.sleep(0.01)  # the follower reads the log; its listener takes longer
            attempt_log.append(Delta(content="meanwhile"))
            await attempt_log.flush()
            await eventually(lambda: followers(own_redis, job) == 1)
            await there.leases.hand_over(QUEUE, job, claim.attempt, reason="", counts=False)
        await there.run(await there.claim())
        frames = await asyncio.wait_for(follower, 5)
        logged = [frame async for page in there.log.read(job) for frame in page]

        assert logged == frames


async def test_after_a_reconnect_followers_read_the_log(own_redis: RedisServer) -> None:
    async with relay_on(own_redis.url) as here, relay_on(own_redis.url) as there:
        job = await there.enqueue()
        attempt_log = there.attempt_log(await there.claim())
        async with aclosing(here.log.follow(job)) as following:
            heard = [*await anext(following)]
            own_redis.say("CLIENT", "KILL", "TYPE", "pubsub")
            await asyncio.sleep(0.01)  # the follower reads the log; its listener takes longer
            attempt_log.append(Delta(content="meanwhile"))
            async with asyncio.timeout(3):
                while heard[-1].type != "delta":
                    heard += await anext(following)

        assert [frame.id for frame in heard] == [(1, 0), (1, 1), (1, 2)]


async def test_unicode_survives(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue()
        await relay.run(await relay.claim(), Delta(content="naïve 🦙 \u2028 \x00 日本"))

        assert (await relay.result(job)).content == "naïve 🦙 \u2028 \x00 日本"


async def test_an_unknown_job_cannot_be_followed(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        with pytest.raises(JobNotFound, match="no job"):
            await relay.frames("0" * 32)


async def test_a_page_is_small_where_large_entries_follow_small_ones(redis_url: str) -> None:
    events = [*words(100), *[Delta(content="x" * 30_000)] * 20, *words(100)]
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue()
        attempt_log = relay.attempt_log(await relay.claim())
        for event in events:
            attempt_log.append(event)
            await attempt_log.flush()
        pages = [page async for page in relay.log.read(job)]

    assert [f.event for page in pages for f in page][2:] == events
    assert max(sum(len(frame.body) for frame in page) for page in pages) < 200_000
    assert len(pages) < 25


LARGE = [Delta(content=f"{number} ".ljust(100_000, "x")) for number in range(24)]
"""Events of a fast backend, which become few entries of a megabyte."""


def most_held(pages: list[list[Frame]]) -> int:
    return max(sum(len(frame.body) for frame in page) for page in pages)


async def test_a_reader_gets_a_large_entry_in_parts(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue()
        await relay.run(await relay.claim(), *LARGE)
        pages = [page async for page in relay.log.read(job)]
        later = [page async for page in relay.log.read(job, EventId(1, 7))]
        entries = await relay.connection.command("XLEN", redis_keys.log(job))

    assert entries < 10
    assert [f.event for page in pages for f in page][2:-1] == LARGE
    assert [f.event for page in later for f in page][:-1] == LARGE[6:]
    assert most_held(pages) < 140_000


async def test_a_follower_gets_a_large_message_in_parts(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue()
        claim = await relay.claim()
        pages: list[list[Frame]] = []
        async with aclosing(relay.log.follow(job)) as following:
            pages.append(await anext(following))
            await relay.run(claim, *LARGE)
            pages += [page async for page in following]

    assert [f.event for page in pages for f in page][2:-1] == LARGE
    assert most_held(pages) < 140_000


async def test_followers_of_a_job_share_its_large_frames(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue()
        claim = await relay.claim()
        async with aclosing(relay.log.follow(job)) as one, aclosing(relay.log.follow(job)) as two:
            await anext(one)
            await anext(two)
            await relay.run(claim, Delta(content="x" * 300_000), Done())
            live = [await anext(one), await anext(two)]
        stored = [[p async for p in relay.log.read(job, EventId(1, 1))] for _ in range(2)]

    assert live[0][0] is live[1][0]
    assert stored[0][0][0] is stored[1][0][0]


async def test_readers_that_come_together_read_a_large_entry_once(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[EventId] = []
    page_after = log_reader.page_after

    def counted(job_id: str, cursor: EventId) -> Any:
        asked.append(cursor)
        return page_after(job_id, cursor)

    monkeypatch.setattr(log_reader, "page_after", counted)
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue()
        await relay.run(await relay.claim(), *LARGE)

        async def read() -> list[Frame]:
            return [frame async for page in relay.log.read(job, EventId(1, 1)) for frame in page]

        logs = await asyncio.gather(*(read() for _ in range(30)))

    assert all([frame.event for frame in log][:-1] == LARGE for log in logs)
    assert asked.count(EventId(1, 1)) == 1


async def test_a_reader_that_is_cancelled_leaves_the_entry_to_others(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue()
        await relay.run(await relay.claim(), *LARGE)

        async def read() -> int:
            return sum([len(page) async for page in relay.log.read(job, EventId(1, 1))])

        reading = [asyncio.create_task(read()) for _ in range(30)]
        await asyncio.sleep(0)
        reading[0].cancel()
        async with asyncio.timeout(10):
            counts = await asyncio.gather(*reading[1:])

    assert set(counts) == {len(LARGE) + 1}


async def test_the_rest_of_a_large_entry_is_read_again_once_it_is_not_kept(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large_frames, "_SHARED_S", 0.01)
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue()
        await relay.run(await relay.claim(), *LARGE)
        heard: list[Frame] = []
        async for page in relay.log.read(job):
            heard += page
            await asyncio.sleep(0.03)  # a client that reads slowly
        assert not relay.log._large._pages

    assert [frame.event for frame in heard][2:-1] == LARGE


async def test_after_a_restart_of_redis_nothing_kept_is_given(own_redis: RedisServer) -> None:
    async with relay_on(own_redis.url) as relay:
        job = await relay.enqueue()
        await relay.run(await relay.claim(), *LARGE)
        async with aclosing(relay.log.read(job)) as pages:
            before = [await anext(pages), await anext(pages)][1][0]
            await asyncio.to_thread(own_redis.restart)
            await eventually(lambda: relay.subscriber.losses > 0)
            async with aclosing(relay.log.read(job, EventId(1, before.id.seq - 1))) as again:
                after = (await anext(again))[0]

    assert before == after
    assert before is not after


async def test_silence_is_reported_with_empty_pages(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue()
        async with aclosing(relay.log.follow(job, idle_s=0.05)) as pages:
            first = await anext(pages)

            assert types(first) == ["queued"]
            assert await anext(pages) == []
            assert await anext(pages) == []


async def test_nothing_is_appended_after_the_terminal_event(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue()
        claim = await relay.claim()
        attempt_log = relay.attempt_log(claim)
        await relay.queue.cancel(job, by="caller")
        attempt_log.append(Delta(content="too late"))

        with pytest.raises(LeaseLost):
            await attempt_log.flush()
        assert types(await relay.frames(job)) == ["queued", "started", "cancelled"]


async def test_a_batch_that_is_sent_twice_stands_once(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue()
        claim = await relay.claim()
        for _ in range(2):
            twin = relay.attempt_log(claim)
            relay.connection.now = lambda: 1.0  # type: ignore[method-assign]
            twin.append(Delta(content="once"))
            await twin.flush()

        assert types([f async for page in relay.log.read(job) for f in page]) == [
            "queued",
            "started",
            "delta",
        ]


async def test_a_restart_of_redis_loses_no_event(own_redis: RedisServer) -> None:
    async with relay_on(own_redis.url) as relay:
        job = await relay.enqueue()
        follower = asyncio.create_task(relay.frames(job))
        attempt_log = relay.attempt_log(await relay.claim())
        said = words(60)
        for at, word in enumerate(said):
            attempt_log.append(word)
            if at == 30:
                await attempt_log.flush()
                await asyncio.to_thread(own_redis.restart)
        attempt_log.append(Done())
        frames = await asyncio.wait_for(follower, 20)

        assert [w.content for w in said] == [f.event.content for f in frames if f.type == "delta"]
        assert [EventId(1, seq) for seq in range(63)] == [frame.id for frame in frames]


async def test_ten_thousand_events_appended_at_once_arrive_in_order(redis_url: str) -> None:
    # hatchet #1455: no order above a thousand events in 20 ms.
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue()
        follower = asyncio.create_task(relay.frames(job))
        claim = await relay.claim()
        await relay.run(claim, *words(10_000))
        await follower

        assert "".join(w.content or "" for w in words(10_000)) == (await relay.result(job)).content


async def test_pages_of_a_log_stay_small_when_its_entries_grow(redis_url: str) -> None:
    # A backend that is faster than Redis fills entries with what it sends meanwhile.
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue()
        attempt_log = relay.attempt_log(await relay.claim())
        sizes = [1] * 150 + [200] * 250
        for size in sizes:
            for _ in range(size):
                attempt_log.append(Delta(content="x" * 60))
            await attempt_log.flush()
        pages = [page async for page in relay.log.read(job)]
        bytes_of = sorted(sum(len(frame.body) for frame in page) for page in pages)

        assert sum(map(len, pages)) == sum(sizes) + 2
        assert bytes_of[-2] <= 2**20
        assert bytes_of[-1] <= 2**22


async def test_a_unix_socket_and_a_password_work_as_well(own_redis: RedisServer) -> None:
    own_redis.say("CONFIG", "SET", "requirepass", "secret word")
    for url in (
        own_redis.unix_url + "&password=secret%20word",
        own_redis.url.replace("//", "//:secret%20word@"),
    ):
        async with relay_on(url) as relay:
            job = await relay.enqueue()
            follower = asyncio.create_task(relay.frames(job))
            await relay.run(await relay.claim(), *words(2))

            assert types(await follower)[-1] == "done"
