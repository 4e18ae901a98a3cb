"""Fragments that wait together are joined: nothing of them is lost, and their order stays."""

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
