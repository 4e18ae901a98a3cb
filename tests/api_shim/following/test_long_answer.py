"""The text of a long answer stays in its log until it is sent; the response is the same."""

import json
import random
from typing import Any

import pytest
from fastapi import Response
from support.relay import relay_on
from support.shim import stage

from api_shim.following import long_answer
from api_shim.following.long_answer import LOGPROBS, LongAnswer
from contract import redis_keys
from contract.errors import JobNotFound
from contract.events import Delta, Event, LogProb, Reset, ToolCallDelta, Usage
from contract.result import Fold

BOTH = ("content", "thinking")
LIKELY = tuple(
    LogProb(token=word, logprob=-at, bytes=(97,), top_logprobs=(LogProb(token="}", logprob=0.0),))
    for at, word in enumerate(("a", '"{'))
)
CALL = ToolCallDelta(index=0, id="c", name="f", arguments='{"a":1}')
WORDS = ("word ", 'a "quote"\n', "\u2028 🦜", "\\u0041 ")


def said(dice: random.Random, count: int) -> list[Event]:
    """Fragments in runs, with what may come between them."""
    events: list[Event] = []
    while len(events) < count:
        text = dice.choice(WORDS) * dice.randint(1, 40)
        one: list[Event] = [
            Delta(content=text),
            Delta(thinking=text),
            Delta(content=text, usage=Usage(completion_tokens=len(events))),
            Delta(content=text, logprobs=LIKELY),
            Delta(logprobs=LIKELY[:1], usage=Usage(completion_tokens=len(events))),
            Delta(content=text, thinking=text, logprobs=LIKELY),
            Delta(content="", logprobs=LIKELY),
            Delta(refusal=text, content=text, logprobs=LIKELY),
            Delta(tool_calls=(CALL,), logprobs=LIKELY),
            Delta(tool_calls=(CALL,)),
            Reset(attempt=1, reason="it broke"),
        ]
        (chosen,) = dice.choices(one, weights=[10, 5, 2, 4, 1, 1, 1, 1, 1, 1, 0.3])
        events += [chosen] * (dice.randint(1, 9) if isinstance(chosen, Delta) else 1)
    return events


async def whole(long: LongAnswer, log: Any) -> tuple[Any, int]:
    """The result as it is sent, and the bytes that were held of it."""
    answer = Fold()
    async for frames in long.of(log):
        for frame in frames:
            answer.add_frame(frame)
    response = Response(answer.result.model_dump_json())
    pieces = [piece async for piece in long.pieces(bytes(response.body))]
    return json.loads(b"".join(pieces)), len(response.body)


@pytest.mark.parametrize("seed", range(9))
async def test_the_response_is_that_of_the_events_as_they_are(
    redis_url: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_answer, "KEPT_BYTES", 2000)
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue()
        await relay.run(await relay.claim(), *said(random.Random(seed), 400))
        expected = await relay.result(job)
        sent, _ = await whole(LongAnswer(relay.log, job, (*BOTH, LOGPROBS)), relay.log.read(job))

    assert sent == json.loads(expected.model_dump_json())


async def test_little_is_held_of_a_long_answer(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_answer, "KEPT_BYTES", 2000)
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue()
        await relay.run(await relay.claim(), *[Delta(content="x" * 100_000)] * 30)
        sent, held_bytes = await whole(LongAnswer(relay.log, job), relay.log.read(job))

    assert len(sent["content"]) == 3_000_000
    assert held_bytes < 4_000


async def test_of_a_long_answer_in_short_fragments_little_text_is_held(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue()
        await relay.run(await relay.claim(), *[Delta(content="x" * 1000)] * 1000)
        sent, held_bytes = await whole(LongAnswer(relay.log, job), relay.log.read(job))

    assert len(sent["content"]) == 1_000_000
    assert held_bytes < 140_000


async def test_of_a_job_whose_log_goes_soon_more_text_is_held(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue()
        await relay.run(await relay.claim(), *[Delta(content="x" * 1000)] * 900)
        long, answer = LongAnswer(relay.log, job, is_kept_briefly=True), Fold()
        async for frames in long.of(relay.log.read(job)):
            for frame in frames:
                answer.add_frame(frame)

    assert answer.result.content == "x" * 900_000


async def test_a_log_that_goes_meanwhile_is_an_error_and_no_shorter_answer(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_answer, "KEPT_BYTES", 0)
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue()
        await relay.run(await relay.claim(), Delta(content="word"))
        long, answer = LongAnswer(relay.log, job), Fold()
        async for frames in long.of(relay.log.read(job)):
            for frame in frames:
                answer.add_frame(frame)
        await relay.connection.command("DEL", redis_keys.log(job))

        with pytest.raises(JobNotFound):
            async for _ in long.pieces(answer.result.model_dump_json().encode()):
                pass


async def test_a_log_is_read_once_for_each_field_though_thoughts_and_words_alternate(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_answer, "KEPT_BYTES", 2000)
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue()
        words = [Delta(thinking="t" * 50), Delta(content="c" * 50)] * 1500
        await relay.run(await relay.claim(), *words)
        long, read, begun = LongAnswer(relay.log, job, BOTH), relay.log.read, []

        def counted(*where: Any) -> Any:
            begun.append(where)
            return read(*where)

        monkeypatch.setattr(relay.log, "read", counted)
        sent, _ = await whole(long, relay.log.read(job))

    assert (len(sent["thinking"]), len(sent["content"])) == (75_000, 75_000)
    assert len(begun) == 3


async def test_a_job_with_a_long_answer_is_returned_whole(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        job = await at.relay.enqueue()
        chunks = [Delta(content=f"{number} ".ljust(50_000, "é")) for number in range(100)]
        await at.relay.run(await at.relay.claim(), Delta(thinking="hm"), *chunks)
        seen = await at.http.get(f"/api/v1/jobs/{job}")
        head = await at.http.head(f"/api/v1/jobs/{job}")

    assert seen.json()["result"]["content"] == "".join(each.content or "" for each in chunks)
    assert (seen.json()["result"]["thinking"], seen.json()["status"]) == ("hm", "done")
    assert "content-length" not in seen.headers
    assert seen.headers["x-fleet-job"] == job
    assert (head.status_code, head.content) == (200, b"")
