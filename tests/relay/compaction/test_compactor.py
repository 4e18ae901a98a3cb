"""The compactor: ended jobs get small, nobody who reads them notices, and others are left alone."""

import asyncio
import threading
from contextlib import aclosing
from typing import Any

import pytest
from support.redis_server import RedisServer
from support.relay import QUEUE, Relay, chat, relay_on, words

from contract import redis_keys
from contract.errors import FleetError
from contract.events import (
    BEGINNING,
    Delta,
    Event,
    EventId,
    Frame,
    Reset,
    Resumed,
    ToolCallDelta,
    Vectors,
)
from contract.tenants import Tenant
from relay.compaction import compactor
from relay.dead_letters import DeadLetterFilter, DeadLetters

AT_ONCE = {"compact_after_s": 0.001}
ADMIN = Tenant(name="default", admin=True)


async def compact_all(relay: Relay, seconds: float = 10.0) -> None:
    """Compact what is due, until nothing is."""
    until = asyncio.get_running_loop().time() + seconds
    while await relay.compactor.compact_some(until):
        pass


async def is_compacted(relay: Relay, job: str) -> bool:
    return bool(await relay.connection.command("HEXISTS", redis_keys.record(job), "compacted"))


async def until_compacted(relay: Relay, *jobs: str) -> None:
    async with asyncio.timeout(5):
        for job in jobs:
            while not await is_compacted(relay, job):
                await compact_all(relay)
                await asyncio.sleep(0.001)


async def ended(relay: Relay, *events: Event, **fields: Any) -> str:
    job = await relay.enqueue(**fields)
    await relay.run(await relay.claim(), *events)
    return job


async def size_of(relay: Relay, job: str) -> int:
    """Bytes of the job's keys and of its places in lists."""
    keys = [key async for key in relay_keys(relay) if job in key]
    sizes = await relay.connection.pipeline(
        [("MEMORY", "USAGE", key, "SAMPLES", 0) for key in keys]
    )
    listed = 2 * 100  # fleet:recent and the tenant's: a member takes 93 bytes (used_memory)
    return sum(sizes) + listed


async def relay_keys(relay: Relay) -> Any:
    cursor: Any = b"0"
    while True:
        cursor, page = await relay.connection.command("SCAN", cursor, "COUNT", 1000)
        for key in page:
            yield key.decode()
        if int(cursor) == 0:
            return


@pytest.mark.parametrize("chunks", [16, 500])
async def test_an_ended_job_takes_little_more_than_its_text(redis_url: str, chunks: int) -> None:
    async with relay_on(redis_url, **AT_ONCE) as relay:
        job = await ended(relay, *words(chunks))
        await until_compacted(relay, job)
        text_bytes = len((await relay.result(job)).content)

        assert await size_of(relay, job) <= 2500 + 1.2 * text_bytes
        encoding = await relay.connection.command("OBJECT", "ENCODING", redis_keys.record(job))
        assert encoding == b"listpack"


async def test_every_reader_finds_what_it_found_before(redis_url: str) -> None:
    call = ToolCallDelta(index=0, id="c", name="f", arguments="{")
    async with relay_on(redis_url, **AT_ONCE) as relay:
        job = await relay.enqueue("x" * 100, metadata={"note": "y" * 100})
        first = await relay.claim()
        attempt_log = relay.attempt_log(first)
        for event in (*words(20), Delta(thinking="hm"), Delta(tool_calls=(call,))):
            attempt_log.append(event)
        await attempt_log.flush()
        await relay.leases.hand_over(QUEUE, job, 1, reason="", counts=False)
        await relay.run(
            await relay.claim(),
            Resumed(attempt=2, reason="r"),
            *words(600),
            Reset(attempt=2, reason="r"),
            Vectors(index=0, count=1, dimension=9000, data="A" * 48_000),
            *words(3),
        )
        before = await seen(relay, job)
        await until_compacted(relay, job)

        assert await seen(relay, job) == before
        cursors = [frame.id or BEGINNING for frame in before[0]]
        for at in [*range(0, len(cursors), 41), *range(20, 27), len(cursors) - 1]:
            assert await relay.frames(job, cursors[at]) == before[0][at + 1 :]
        nonce = first.record.nonce
        assert await relay.frames(job, EventId(1, 3), nonce) == before[0][4:]
        for lost, wrong in ((EventId(1, 3), "beef"), (EventId(1, 99), None), (EventId(7, 0), None)):
            reset, *rest = await relay.frames(job, lost, wrong)
            assert reset.type == "log_reset"
            assert rest == before[0]


async def seen(relay: Relay, job: str) -> tuple[list[Frame], Any, Any, Any, Any]:
    return (
        await relay.frames(job),
        await relay.result(job),
        await relay.records.get(job),
        await relay.records.request(job),
        (await relay.records.page()).jobs,
    )


async def test_a_reader_that_meets_the_compaction_between_two_pages_reads_on(
    redis_url: str,
) -> None:
    async with relay_on(redis_url, **AT_ONCE) as relay:
        job = await relay.enqueue()
        attempt_log = relay.attempt_log(await relay.claim())
        for word in words(300):
            attempt_log.append(word)
            await attempt_log.flush()
        await relay.queue.cancel(job, by="caller")
        whole = await relay.frames(job)
        heard: list[Frame] = []
        async with aclosing(relay.log.follow(job)) as pages:
            heard += await anext(pages)
            await until_compacted(relay, job)
            async for frames in pages:
                heard += frames

        assert len(whole) == 303
        assert heard == whole


async def test_a_job_that_has_not_ended_or_ended_just_now_is_looked_at_again(
    redis_url: str,
) -> None:
    async with relay_on(redis_url, compact_after_s=0.3) as relay:
        waiting = await relay.enqueue()
        job = await relay.enqueue()
        await asyncio.sleep(0.7)
        await compact_all(relay)
        assert (await relay.claim()).record.id == waiting
        await relay.run(await relay.claim(), *words(3))
        await compact_all(relay)
        assert not await is_compacted(relay, job)
        await until_compacted(relay, job)

        assert not await is_compacted(relay, waiting)
        later = await relay.connection.command("ZRANGE", redis_keys.UNCOMPACTED, 0, -1)
        assert later == [waiting.encode()]


async def test_the_next_maintainer_begins_where_the_last_one_died(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with relay_on(redis_url, **AT_ONCE) as relay:
        jobs = [await ended(relay, *words(3)) for _ in range(5)]
        await asyncio.sleep(0.01)
        monkeypatch.setattr(compactor, "_GROUP", 2)
        calls = relay.connection.calls

        async def die(*_: Any) -> Any:
            raise asyncio.CancelledError

        monkeypatch.setattr(relay.connection, "calls", die)
        with pytest.raises(asyncio.CancelledError):
            await relay.compactor.compact_some(float("inf"))
        monkeypatch.setattr(relay.connection, "calls", calls)
        assert await relay.compactor.compact_some(0.0)  # no time: nothing is lost
        assert not await is_compacted(relay, jobs[0])
        await compact_all(relay)

        assert [await is_compacted(relay, job) for job in jobs] == [True] * 5


async def test_a_log_that_has_changed_is_not_replaced(redis_url: str) -> None:
    async with relay_on(redis_url, **AT_ONCE) as relay:
        job, running = await ended(relay, *words(3)), await relay.enqueue()
        await relay.claim()
        frames = await relay.frames(job)

        async def compact(id: str, ended_at: str, more: int = 0) -> bool:
            length = await relay.connection.command("XLEN", redis_keys.log(id))
            call = compactor.compact(
                id, ended_at=ended_at, length=length + more, moved=[], entries=[]
            )
            return await relay.connection.call(call)

        ended_at = await relay.connection.command("HGET", redis_keys.record(job), "ended_at")
        assert not await compact(job, ended_at, more=1)
        assert not await compact(job, "1795950812.000001")
        assert not await compact(running, "")
        assert await relay.frames(job) == frames
        await until_compacted(relay, job)
        assert not await compact(job, ended_at)
        assert await relay.frames(job) == frames


async def test_a_compacted_job_expires_when_it_would_have(redis_url: str) -> None:
    async with relay_on(redis_url, log_ttl_s=50, **AT_ONCE) as relay:
        job = await ended(relay, *words(3))
        keys = (redis_keys.record(job), redis_keys.log(job))
        before = [await relay.connection.command("PEXPIRETIME", key) for key in keys]
        await until_compacted(relay, job)

        assert [await relay.connection.command("PEXPIRETIME", key) for key in keys] == before


async def test_a_dead_letter_is_shown_and_retried_as_before(redis_url: str) -> None:
    async with relay_on(redis_url, **AT_ONCE) as relay:
        letters = DeadLetters(relay.connection)
        record, _ = await relay.queue.enqueue(
            chat("z" * 100, max_attempts=1, metadata={"note": "y" * 100}), queue=QUEUE
        )
        await relay.claim()
        await relay.leases.hand_over(
            QUEUE, record.id, 1, reason="", counts=True, error=FleetError("it broke")
        )
        dead = await relay.records.get(record.id)
        shown = await letters.show(dead)
        await until_compacted(relay, record.id)

        assert await letters.show(dead) == shown
        page = await letters.page(DeadLetterFilter(visible_to=ADMIN), limit=10)
        assert [letter.error for letter in page.letters] == [shown.error]
        retried = await letters.retry(dead, ADMIN)
        assert await relay.records.request(retried.record.id) == await relay.records.request(
            dead.id
        )
        assert (await relay.records.get(dead.id)).retried_as == retried.record.id


async def test_logs_that_cannot_be_read_stop_no_other(redis_url: str) -> None:
    async with relay_on(redis_url, **AT_ONCE) as relay:
        foreign, newer, torn, job = [await ended(relay, *words(3)) for _ in range(4)]
        await relay.connection.command("SET", redis_keys.log(foreign), "?")
        await relay.connection.command("XADD", redis_keys.log(newer), "9-0", "z", "?")
        await relay.connection.command("XADD", redis_keys.log(torn), "9-0", "f", "?")
        await until_compacted(relay, job)

        for other in (foreign, newer, torn):
            assert not await is_compacted(relay, other)


async def test_what_would_save_little_is_left_as_it_is(redis_url: str) -> None:
    async with relay_on(redis_url, **AT_ONCE) as relay:
        rows = [Vectors(index=at, count=1, dimension=9, data="A" * 20_000) for at in range(4)]
        vectors, job = await ended(relay, *rows), await ended(relay, *words(3))
        await until_compacted(relay, job)

        assert not await is_compacted(relay, vectors)


async def test_without_the_right_to_restore_a_log_is_compacted_all_the_same(
    own_redis: RedisServer,
) -> None:
    own_redis.say("ACL", "SETUSER", "default", "-restore")
    async with relay_on(own_redis.url, **AT_ONCE) as relay:
        job = await ended(relay, *words(500))
        frames = await relay.frames(job)
        await until_compacted(relay, job)

        assert await relay.frames(job) == frames
        assert await size_of(relay, job) < 10_000


async def test_compaction_is_off_at_zero_and_pauses_where_nothing_is_due(redis_url: str) -> None:
    async with relay_on(redis_url, compact_after_s=0) as relay:
        job = await ended(relay, *words(3))
        await asyncio.wait_for(relay.compactor.compact_for(0.05), 5)

        assert not await is_compacted(relay, job)
    async with relay_on(redis_url, **AT_ONCE) as relay:
        await asyncio.wait_for(relay.compactor.compact_for(0.05), 5)

        assert await is_compacted(relay, job)


async def test_while_memory_is_short_jobs_are_compacted_soon_also_in_a_full_redis(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whose answers fill Redis within seconds had others refused until they were minutes old.
    monkeypatch.setattr(compactor, "_SOON_S", 0.001)
    async with relay_on(own_redis.url, compact_after_s=300) as relay:
        job = await ended(relay, *words(500))
        waiting = await relay.enqueue()
        await relay.compactor.compact_for(0.1)
        is_early = await is_compacted(relay, job)
        await relay.connection.command("CONFIG", "SET", "maxmemory", 1)
        async with asyncio.timeout(5):
            while not await is_compacted(relay, job):
                await relay.compactor.compact_for(0.1)
        again = await relay.connection.command("ZSCORE", redis_keys.UNCOMPACTED, waiting)
        await relay.connection.command("CONFIG", "SET", "maxmemory", 0)

        assert not is_early
        assert again is not None


async def test_a_process_holds_no_more_than_a_group_whatever_requests_have(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with relay_on(redis_url, **AT_ONCE) as relay:
        jobs = [await ended(relay, text="x" * 300_000) for _ in range(6)]
        read = Read(relay.connection.pipeline)
        monkeypatch.setattr(relay.connection, "pipeline", read)
        await until_compacted(relay, *jobs)

    assert 300_000 < read.most_bytes < 2**20


class Read:
    """What one round trip reads at most."""

    def __init__(self, pipeline: Any) -> None:
        self.most_bytes = 0
        self._pipeline = pipeline

    async def __call__(self, commands: Any) -> Any:
        replies = await self._pipeline(commands)
        self.most_bytes = max(self.most_bytes, len(repr(replies)))
        return replies


async def test_a_job_with_a_larger_request_than_a_script_may_move_is_left_alone(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compactor, "_LARGEST_BYTES", 100_000)
    async with relay_on(redis_url, **AT_ONCE) as relay:
        large = await ended(relay, text="x" * 100_001)
        small = await ended(relay, text="x" * 50_000)
        await until_compacted(relay, small)

        assert not await is_compacted(relay, large)


async def test_large_jobs_are_packed_beside_the_loop(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed, threads = compactor._packed, []

    def noted(*args: Any) -> Any:
        threads.append(threading.current_thread() is threading.main_thread())
        return packed(*args)

    monkeypatch.setattr(compactor, "_packed", noted)
    async with relay_on(redis_url, **AT_ONCE) as relay:
        await until_compacted(relay, await ended(relay), await ended(relay, text="x" * 50_000))

    assert threads == [True, False]
