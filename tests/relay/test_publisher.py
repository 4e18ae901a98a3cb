"""Fragments that wait together are joined: nothing of them is lost, and their order stays."""

import asyncio

import pytest
from support.relay import relay_on

from contract import redis_keys
from contract.errors import LogFull
from contract.events import Cancelled, Delta, Done, LogProb, ToolCallDelta, Usage
from contract.result import fold
from relay.publisher import joined


async def test_joined_fragments_have_the_same_text(redis_url: str) -> None:
    call = ToolCallDelta(index=0, id="c", name="f", arguments="{}")
    said = [
        Delta(thinking="a"),
        Delta(thinking="b"),
        Delta(content="c"),
        Delta(content="d"),
        Delta(tool_calls=(call,)),
        Done(),
    ]
    async with relay_on(redis_url) as relay:
        await relay.enqueue()
        attempt_log = relay.attempt_log(await relay.claim())
        together = [event for _, event in joined([(attempt_log, event) for event in said])]

    assert len(together) == 4
    assert fold(together) == fold(said)


async def test_fragments_with_log_probabilities_stay_apart(redis_url: str) -> None:
    likely = (LogProb(token="a", logprob=-1.0),)
    said = [Delta(content="a", logprobs=likely), Delta(content="b"), Delta(content="c")]
    async with relay_on(redis_url) as relay:
        await relay.enqueue()
        attempt_log = relay.attempt_log(await relay.claim())
        pending = [(attempt_log, event) for event in (*said, *said)]
        together = [event for _, event in joined(joined(pending))]

    assert together == [said[0], Delta(content="bc")] * 2


async def test_many_log_probabilities_of_a_fragment_are_events_of_their_own(
    redis_url: str,
) -> None:
    likely = tuple(LogProb(token=str(at), logprob=-1.0) for at in range(200))
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue()
        await relay.run(await relay.claim(), Delta(content="all", logprobs=likely))
        result = await relay.result(job)
        sizes = [len(frame.body) for frame in await relay.frames(job)]

    assert (result.content, result.logprobs) == ("all", likely)
    assert len(sizes) == 7  # queued, started, four with 64 at most, done
    assert max(sizes) < 6_000


async def test_the_usage_of_joined_fragments_is_the_latest(redis_url: str) -> None:
    said = [
        *(Delta(content="a", usage=Usage(completion_tokens=count)) for count in (1, 2)),
        Delta(content="b"),
        Cancelled(by="caller"),
    ]
    async with relay_on(redis_url) as relay:
        await relay.enqueue()
        attempt_log = relay.attempt_log(await relay.claim())
        together = [event for _, event in joined([(attempt_log, event) for event in said])]

    assert len(together) == 2
    assert fold(together) == fold(said)


async def test_an_attempt_waits_for_room_of_its_own_alone(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await relay.enqueue()
        fast = relay.attempt_log(await relay.claim())
        await relay.enqueue()
        slow = relay.attempt_log(await relay.claim())
        for count in range(5000):  # without a pause for the publisher
            fast.append(Delta(content=f"{count} "))
        slow.append(Delta(content="one"))

        assert fast.must_wait
        assert not slow.must_wait
        async with asyncio.timeout(5):
            await fast.wait_for_room()
            await slow.flush()


async def test_all_attempts_together_have_a_bound_while_redis_is_silent(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        attempt_logs = []
        for _ in range(100):
            await relay.enqueue()
            attempt_logs.append(relay.attempt_log(await relay.claim()))
        waits = 0
        while waits < len(attempt_logs):  # without a pause for the publisher
            waits = 0
            for each in attempt_logs:
                if each.must_wait:
                    waits += 1
                else:
                    each.append(Delta(content="w "))

        assert relay.publisher.waiting < 4096 + 2 * len(attempt_logs)
        async with asyncio.timeout(5):
            for each in attempt_logs:
                await each.flush()
        assert relay.publisher.waiting_attempts == 0


async def test_a_log_has_no_more_bytes_than_its_cap_however_large_its_events(
    redis_url: str,
) -> None:
    async with relay_on(redis_url, log_cap_bytes=1_000_000) as relay:
        job = await relay.enqueue()
        attempt_log = relay.attempt_log(await relay.claim())
        with pytest.raises(LogFull, match="FLEET_LOG_CAP_BYTES"):  # noqa: PT012 - one of them
            for _ in range(1200):  # without a pause for the publisher
                attempt_log.append(Delta(content="\n" * 50_000))
        attempt_log.append(Done())
        await attempt_log.flush()
        frames = await relay.frames(job)

    assert 800_000 < sum(len(frame.to_wire()) for frame in frames) <= 1_000_500
    assert frames[-1].type == "done"


async def test_an_attempt_with_large_events_waits_after_few_of_them(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await relay.enqueue()
        attempt_log = relay.attempt_log(await relay.claim())
        count = 0
        while not attempt_log.must_wait:
            attempt_log.append(Delta(content="x" * 1_000_000))
            count += 1

        assert count < 40
        async with asyncio.timeout(5):
            await attempt_log.wait_for_room()
            await attempt_log.flush()


async def test_what_waits_counts_as_nothing_once_it_is_written(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await relay.enqueue()
        attempt_log = relay.attempt_log(await relay.claim())
        for count in range(5000):  # so many that the publisher joins them
            attempt_log.append(Delta(content=f"{count} "))
        await attempt_log.flush()

        assert (attempt_log.unsent, attempt_log.unsent_bytes) == (0, 0)


async def test_a_terminal_event_is_read_without_the_large_answer_before_it(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue()
        attempt_log = relay.attempt_log(await relay.claim())
        attempt_log.append(Delta(content="x" * 100_000))
        attempt_log.append(Done())
        await attempt_log.flush()
        log = redis_keys.log(job)
        ((_, fields),) = await relay.connection.command("XREVRANGE", log, "+", "-", "COUNT", 1)

    assert len(fields[b"f"]) < 1000
