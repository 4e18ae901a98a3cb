"""What another program has put into a job's log is passed over and named; all others read on.

Subjects: relay/log.py, relay/compaction/block.py, relay/dead_letters.py, workers/continuation.py.
"""

import asyncio
import logging
import re
from collections.abc import Callable
from typing import Any

import pytest
from support.relay import QUEUE, Relay, relay_on, words

from contract import redis_keys
from contract.errors import JobNotFound, NewerVersion
from contract.events import BEGINNING, Cancelled, Cursor, Delta, Done, EventId, Failed, Frame
from relay.leases import Holder
from workers.continuation import EarlierOutput

GARBAGE: dict[str, Callable[[bytes], dict[bytes, bytes]]] = {
    "half a frame": lambda frame: {b"f": frame[: len(frame) // 2]},
    "a frame without its end": lambda frame: {b"f": frame[:-1]},
    "a frame twice": lambda frame: {b"f": frame},
    "a frame without a head": lambda frame: {b"f": frame.partition(b"{")[2]},
    "another program's JSON": lambda _: {b"f": b'{"a":1}'},
    "bytes": lambda _: {b"f": b"\xff\xfe\x00"},
    "nothing": lambda _: {b"f": b""},
    "a newline": lambda _: {b"f": b"\n"},
    "a type with controls": lambda _: {b"f": b'9-1 d\re {"id":"9-1","at":1.0}'},
    "a body with controls": lambda _: {b"f": b'9-1 delta {"id":"9-1","at":1.0}\r'},
    "no object": lambda _: {b"f": b"9-1 delta [1]"},
    "deep": lambda _: {b"f": b'9-1 delta {"id":"9-1","at":1,"x":' + b"[" * 9999},
    "half a pair": lambda _: {b"f": rb'9-1 delta {"id":"9-1","at":1,"content":"\ud800"}'},
    "a huge id": lambda _: {b"f": b"9" * 5000 + b"-1 delta {}"},
    "no block": lambda _: {b"b": b"\xff\xfe"},
    "an empty block": lambda _: {b"b": b""},
    "another field": lambda _: {b"x": b"y"},
    "a later form of nothing": lambda _: {b"v": b"?"},
    "a field of bytes": lambda _: {b"\xff": b"\xff"},
}  # fmt: skip


OTHER_TYPES = (
    b'"content":5', b'"content":["a"]', b'"thinking":5', b'"tool_calls":[{"index":"x","id":5}]',
    b'"content":"a","logprobs":[{"token":5}]', b'"content":"a","usage":7',
)  # fmt: skip
"""In place of the text of a fragment: JSON, which no reader could read."""


async def ended(relay: Relay, number: int = 3) -> str:
    job = await relay.enqueue()
    await relay.run(await relay.claim(), *words(number))
    return job


async def entries(relay: Relay, job: str) -> list[tuple[bytes, dict[bytes, bytes]]]:
    found: list[Any] = await relay.connection.command("XRANGE", redis_keys.log(job), "-", "+")
    return found


async def rewritten(relay: Relay, job: str, log: list[tuple[bytes, dict[bytes, bytes]]]) -> None:
    key = redis_keys.log(job)
    adds = [("XADD", key, id, *(w for pair in held.items() for w in pair)) for id, held in log]
    await relay.connection.pipeline([("DEL", key), *adds])


async def packed_apart(relay: Relay, job: str) -> None:
    """A frame an entry, as slow backends have them."""
    frames = [frame async for page in relay.log.read(job) for frame in page]
    await rewritten(relay, job, [(str(f.id).encode(), {b"f": f.to_wire()}) for f in frames])


async def read(relay: Relay, job: str, after: EventId = BEGINNING) -> list[Frame]:
    return [frame async for page in relay.log.read(job, after) for frame in page]


@pytest.mark.parametrize("kind", GARBAGE)
async def test_what_stands_behind_the_end_is_passed_over_by_every_reader(
    redis_url: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "relay.connection")
    async with relay_on(redis_url) as relay, asyncio.timeout(10):
        job = await ended(relay)
        good = await read(relay, job)
        key, wire = redis_keys.log(job), good[-2].to_wire()
        for _ in range(3):
            ((field, value),) = GARBAGE[kind](wire).items()
            await relay.connection.command("XADD", key, "*", field, value)
        after = [await relay.frames(job, frame.id or BEGINNING) for frame in good]

        assert await read(relay, job) == good == await relay.frames(job)
        assert after == [good[at + 1 :] for at in range(len(good))]
        assert await relay.log.is_at_its_end(job, Cursor(good[-1].id or BEGINNING))
        assert not await relay.log.is_at_its_end(job, Cursor(good[-2].id or BEGINNING))
        assert (await relay.result(job)).status == "done"
        assert caplog.text.count(key) == 1


def behind(end: Frame) -> list[Frame]:
    """Sound events behind the end of a log, which no process of the fleet writes."""
    attempt, seq = end.id or BEGINNING
    late = (Failed(code="x", message="late"), Delta(content="later"))
    return [Frame.of(EventId(attempt, seq + n), 1.0, each) for n, each in enumerate(late, 1)]


async def extended(relay: Relay, job: str, frames: list[Frame]) -> None:
    log = redis_keys.log(job)
    adds = [("XADD", log, str(frame.id), "f", frame.to_wire()) for frame in frames]
    await relay.connection.pipeline(adds)


async def test_the_first_terminal_event_is_the_end_for_every_reader(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "relay.connection")
    async with relay_on(redis_url) as relay, asyncio.timeout(10):
        job = await ended(relay)
        good = await read(relay, job)
        late = behind(good[-1])
        await extended(relay, job, late)
        after = [await relay.frames(job, frame.id or BEGINNING) for frame in good]

        assert await read(relay, job) == good == await relay.frames(job)
        assert after == [good[at + 1 :] for at in range(len(good))]
        assert await relay.frames(job, late[0].id or BEGINNING) == []
        reset, *again = await relay.frames(job, late[1].id or BEGINNING)
        assert (reset.type, again) == ("log_reset", good)
        assert await relay.log.is_at_its_end(job, Cursor(good[-1].id or BEGINNING))
        assert (await relay.result(job)).status == "done"
        assert caplog.text.count(redis_keys.log(job)) == 1


async def test_a_page_that_ends_with_the_end_is_no_damage_unless_more_follows(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "relay.connection")
    async with relay_on(redis_url) as relay, asyncio.timeout(10):
        job = await ended(relay)
        await packed_apart(relay, job)
        *good, end = await read(relay, job)
        large = Frame.of(end.id, 1.0, Done(stop_sequence="x" * 2**16))
        await rewritten(relay, job, (await entries(relay, job))[:-1])
        await extended(relay, job, [large])
        assert await read(relay, job) == [*good, large]
        assert caplog.text == ""
        await extended(relay, job, behind(end))

        assert await read(relay, job) == [*good, large] == await relay.frames(job)
        assert redis_keys.log(job) in caplog.text


async def test_a_follower_ends_with_the_first_terminal_event_that_it_receives(
    redis_url: str,
) -> None:
    async with relay_on(redis_url) as relay, asyncio.timeout(10):
        job = await relay.enqueue()
        stream = relay.log.follow(job)
        (queued,) = await anext(stream)
        attempt, seq = queued.id or BEGINNING
        end = Frame.of(EventId(attempt, seq + 1), 1.0, Done())
        sent = b"\n".join(frame.to_wire() for frame in (end, *behind(end)))
        await relay.connection.command("PUBLISH", redis_keys.channel(job), sent)

        assert [frame async for frames in stream for frame in frames] == [end]


@pytest.mark.parametrize("kind", [each for each in GARBAGE if each != "a frame twice"])
async def test_what_stands_in_place_of_a_frame_is_passed_over(redis_url: str, kind: str) -> None:
    async with relay_on(redis_url) as relay, asyncio.timeout(10):
        job = await ended(relay)
        await packed_apart(relay, job)
        log = await entries(relay, job)
        for at in range(len(log) - 1):
            spoilt = [*log]
            spoilt[at] = (log[at][0], GARBAGE[kind](log[at][1][b"f"]))
            await rewritten(relay, job, spoilt)
            rest = [held[b"f"] for id, held in log if id != log[at][0]]

            assert [frame.to_wire() for frame in await read(relay, job)] == rest
            assert [frame.to_wire() for frame in await relay.frames(job)] == rest


@pytest.mark.parametrize("fields", OTHER_TYPES)
async def test_a_fragment_with_fields_of_other_types_is_passed_over_and_named(
    redis_url: str, fields: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with relay_on(redis_url) as relay:
        job = await ended(relay)
        log = await entries(relay, job)
        at = next(at for at, (_, held) in enumerate(log) if b" delta " in held[b"f"])
        id, held = log[at]
        first, *others = held[b"f"].split(b"\n")
        wrong = re.sub(rb'"content":"[^"]*"', fields, first)
        log[at] = id, {b"f": b"\n".join([wrong, *others])}
        whole = await read(relay, job)
        await rewritten(relay, job, log)

        assert [f.to_wire() for f in await read(relay, job)] == [
            frame.to_wire() for frame in whole if frame.to_wire() != first
        ]
    assert redis_keys.log(job) in caplog.text


@pytest.mark.parametrize(
    ("status", "event"), [("done", Done), ("failed", Failed), ("cancelled", Cancelled)]
)
async def test_the_end_of_a_job_whose_end_is_damaged_is_that_of_its_record(
    redis_url: str, status: str, event: type
) -> None:
    async with relay_on(redis_url) as relay, asyncio.timeout(10):
        job = await ended(relay)
        await packed_apart(relay, job)
        *log, (id, held) = await entries(relay, job)
        await rewritten(relay, job, [*log, (id, {b"f": held[b"f"][:30]})])
        await relay.connection.command("HSET", redis_keys.record(job), "status", status)
        frames = await read(relay, job)
        last = frames[-1]

        assert (str(last.id).encode(), type(last.event)) == (id, event)
        assert frames == await relay.frames(job)
        assert await relay.frames(job, frames[-2].id or BEGINNING) == [last]
        assert await relay.frames(job, last.id or BEGINNING) == []
        assert (await relay.result(job)).status == status


async def test_a_job_that_runs_on_has_no_end_made_up(redis_url: str) -> None:
    async with relay_on(redis_url) as relay, asyncio.timeout(10):
        job = await relay.enqueue()
        attempt = relay.attempt_log(await relay.claim())
        attempt.append(words(1)[0])
        await attempt.flush()
        log = await entries(relay, job)
        await rewritten(relay, job, [*log[:-1], (log[-1][0], {b"f": log[-1][1][b"f"][:-9]})])
        stream = relay.log.follow(job, idle_s=0.1)
        first = [await anext(stream), await anext(stream)]
        attempt.append(Done())
        await attempt.flush()
        rest = [frame async for frames in stream for frame in frames]

        assert [frame.type for frames in first for frame in frames] == ["queued", "started"]
        assert [frame.type for frame in rest] == ["done"]


async def test_a_job_whose_log_another_program_writes_to_runs_again_and_ends(
    redis_url: str,
) -> None:
    async with relay_on(redis_url, lease_s=0.05) as relay, asyncio.timeout(10):
        job = await relay.enqueue()
        first = relay.attempt_log(await relay.claim())
        await relay.connection.command("XADD", redis_keys.log(job), "*", "x", "y")
        first.append(Done())
        await first.until_lost
        while not await relay.leases.reap():
            await asyncio.sleep(0.02)
        await relay.connection.command("XADD", redis_keys.log(job), "*", "x", "y")
        await relay.run(await relay.claim("w2"), *words(1), worker="w2")

        assert [frame.type for frame in await relay.frames(job)] == [
            "queued", "started", "queued", "started", "delta", "done",
        ]  # fmt: skip


async def test_a_job_whose_log_another_program_writes_to_is_cancelled(redis_url: str) -> None:
    async with relay_on(redis_url) as relay, asyncio.timeout(10):
        job = await relay.enqueue()
        await relay.connection.command("XADD", redis_keys.log(job), "*", "x", "y")
        await relay.queue.cancel(job, by="caller")

        assert [frame.type for frame in await relay.frames(job)] == ["queued", "cancelled"]


async def test_a_thousand_entries_of_garbage_end_a_read(redis_url: str) -> None:
    async with relay_on(redis_url) as relay, asyncio.timeout(10):
        job = await ended(relay)
        good = await read(relay, job)
        add = ("XADD", redis_keys.log(job), "*", "x", "y" * 999)
        await relay.connection.pipeline([add] * 1000)

        assert await read(relay, job) == good
        assert await read(relay, job, good[-1].id or BEGINNING) == []


async def test_half_an_entry_of_several_frames_keeps_its_first(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job = await ended(relay, 9)
        log = await entries(relay, job)
        id, held = max(log, key=lambda each: len(each[1][b"f"]))
        lines = held[b"f"].split(b"\n")
        half = b"\n".join([*lines[:3], lines[3][:20]])
        await rewritten(relay, job, [(i, {b"f": half} if i == id else h) for i, h in log])
        kept = [frame.to_wire() for frame in await read(relay, job)]

    assert len(lines) > 3
    assert lines[2] in kept
    assert lines[3] not in kept


async def test_a_compacted_log_of_which_a_block_is_cut_shows_what_is_whole(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job = await ended(relay, 200)
        good = await read(relay, job)
        await compacted(relay, job)
        log = await entries(relay, job)
        (id, held), *rest = log
        await rewritten(relay, job, [(id, {b"b": held[b"b"][: -len(held[b"b"]) // 8]}), *rest])
        found = await read(relay, job)

    assert found[-1] == good[-1]
    assert 1 < len(found) < len(good)
    assert found[:-1] == good[: len(found) - 1]


async def compacted(relay: Relay, job: str) -> None:
    from relay.compaction.block import compacted as packed  # noqa: PLC0415

    frames = await read(relay, job)
    log = [(entry.id.encode(), {entry.field: entry.value}) for entry in packed(frames)]
    await rewritten(relay, job, log)


async def test_a_form_of_a_newer_version_is_refused_still(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job = await ended(relay)
        await relay.connection.command("XADD", redis_keys.log(job), "*", "v", "2", "z", "?")
        with pytest.raises(NewerVersion, match="newer version"):
            await read(relay, job)


async def test_a_damaged_log_is_not_compacted(redis_url: str) -> None:
    async with relay_on(redis_url, compact_after_s=0.001) as relay:
        job = await ended(relay, 60)
        await relay.connection.command("XADD", redis_keys.log(job), "*", "x", "y")
        before, other = await entries(relay, job), await ended(relay, 60)
        async with asyncio.timeout(5):
            mark = ("HEXISTS", redis_keys.record(other), "compacted")
            while not await relay.connection.command(*mark):
                await relay.compactor.compact_some(float("inf"))
                await asyncio.sleep(0.01)

        assert await entries(relay, job) == before


async def test_garbage_on_the_channel_is_made_good_by_the_log(redis_url: str) -> None:
    async with relay_on(redis_url) as relay, asyncio.timeout(10):
        job = await relay.enqueue()
        follower = asyncio.create_task(relay.frames(job))
        attempt = relay.attempt_log(await relay.claim())
        channel = redis_keys.channel(job)
        for number, word in enumerate(words(9)):
            for each in (b"", b"x", b"1-3 delta {", b"\xff", b"1-%d delta {}" % (number + 2)):
                await relay.connection.command("PUBLISH", channel, each)
            attempt.append(word)
            await attempt.flush()
        attempt.append(Done())
        await attempt.flush()
        frames = await follower

        assert frames == await read(relay, job)


async def test_a_dead_letter_keeps_its_error_behind_garbage(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue(max_attempts=1)
        claim = await relay.claim()
        failed = Failed(code="boom", message="no", dead=True)
        log = relay.attempt_log(claim)
        log.append(failed)
        await log.flush()
        await relay.leases.release(QUEUE, job, Holder(claim.attempt, "w1"))
        from relay.dead_letters import _error  # noqa: PLC0415

        await relay.connection.command("XADD", redis_keys.log(job), "*", "x", "y")
        found = await relay.connection.command(
            "XREVRANGE", redis_keys.log(job), "+", "-", "COUNT", 16
        )

        assert _error(found) == failed


async def test_an_answer_with_a_gap_is_not_continued(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job = await ended(relay)
        whole = await EarlierOutput.of(relay.log, job)
        await packed_apart(relay, job)
        log = await entries(relay, job)
        log[-2] = (log[-2][0], {b"f": b"?"})
        await rewritten(relay, job, log)
        cut = await EarlierOutput.of(relay.log, job)

    assert (whole.has_unknown, cut.has_unknown) == (False, True)


async def test_damaged_fields_of_a_record_in_a_log_leave_the_job_to_be_seen(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job = await ended(relay)
        log = await entries(relay, job)
        await rewritten(relay, job, [(b"0-1", {b"r": b"\xff"}), *log])
        await relay.connection.command(
            "HSET", redis_keys.record(job), "compacted", "metadata request"
        )
        await relay.connection.command("HDEL", redis_keys.record(job), "metadata", "request")

        assert (await relay.records.get(job)).status == "done"
        with pytest.raises(NewerVersion, match="damaged"):
            await relay.records.request(job)


async def test_a_log_without_any_readable_entry_has_an_end_or_is_gone(redis_url: str) -> None:
    async with relay_on(redis_url) as relay, asyncio.timeout(10):
        job = await ended(relay)
        await rewritten(relay, job, [(b"1-0", {b"x": b"y"})])
        frames = await relay.frames(job)
        await relay.connection.command("DEL", redis_keys.log(job))

        assert [frame.type for frame in frames] == ["done"]
        with pytest.raises(JobNotFound):
            await relay.frames(job)
