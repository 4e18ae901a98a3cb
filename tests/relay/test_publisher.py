"""Fragments that wait together are joined: nothing of them is lost, and their order stays."""

import asyncio

from support.relay import relay_on

from contract.events import Cancelled, Delta, Done, LogProb, ToolCallDelta, Usage
from contract.result import fold
from relay.publisher import joined


async def test_joined_fragments_have_the_same_text(redis_url: str) -> None:
    call = ToolCallDelta(index=0, id="c", name="f", arguments="{}")
    said = [
        Delta(thinking="a"),
        Delta(thinking="b"),
        Delta(content="c", logprobs=(LogProb(token="c", logprob=-1.0),)),
        Delta(content="d", logprobs=(LogProb(token="d", logprob=-2.0),)),
        Delta(tool_calls=(call,)),
        Done(),
    ]
    async with relay_on(redis_url) as relay:
        await relay.enqueue()
        attempt_log = relay.attempt_log(await relay.claim())
        together = [event for _, event in joined([(attempt_log, event) for event in said])]

    assert len(together) == 4
    assert fold(together) == fold(said)


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
