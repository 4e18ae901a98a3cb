"""An error is one sentence, with the field's own name and its bounds."""

import asyncio
import json
from typing import Any

import pytest
from support.shim import stage

from contract.events import Delta, Done, ToolCallDelta
from relay.claims import StartedJob

SAYING = [{"role": "user", "content": "x"}]


@pytest.mark.parametrize(
    ("path", "body", "param", "words"),
    [
        ("responses", {"input": "x", "max_output_tokens": 0}, "max_output_tokens", "1"),
        (
            "chat/completions",
            {"messages": SAYING, "max_completion_tokens": 0},
            "max_completion_tokens",
            "1",
        ),
        ("chat/completions", {"messages": SAYING, "max_tokens": 0}, "max_tokens", "1"),
        ("completions", {"prompt": "x", "max_tokens": 0}, "max_tokens", "1"),
        ("images/generations", {"prompt": "x", "size": "0x0"}, "size", "16 to 8192"),
        ("images/generations", {"prompt": "x", "size": "10000x10000"}, "size", "16 to 8192"),
        ("embeddings", {"input": [True]}, "input", "item 0 is none of these"),
        ("embeddings", {"input": ["a", 1]}, "input", "item 1 is none of these"),
        ("embeddings", {"input": {"a": 1}}, "input", "must be one text, a list of texts"),
        ("embeddings", {"input": ["x"] * 2049}, "input", "2049 texts, and a request may have 2048"),
        ("embeddings", {"input": [[1]] * 2049}, "input", "2049 texts, and a request may have 2048"),
    ],
)
async def test_a_mistake_is_one_sentence_that_names_the_field_as_it_was_sent(
    path: str, body: dict[str, Any], param: str, words: str, *, shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        answer = await at.http.post(f"/v1/{path}", json={"model": "m", **body})
        error = answer.json()["error"]

        assert (answer.status_code, error["param"]) == (400, param)
        assert words in error["message"]
        assert error["message"].count(f"{param}: ") == 1
        assert "; and " not in error["message"]


async def claimed(at: Any) -> StartedJob:
    async with asyncio.timeout(5):
        while True:
            claim: StartedJob | None = await at.relay.start_next("scripted.chat", "w1")
            if claim is not None:
                return claim
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("first", "content"),
    [
        (Delta(tool_calls=(ToolCallDelta(index=0, id="c", name="f", arguments="{}"),)), None),
        (Delta(content="a"), ""),
    ],
)
async def test_an_answer_that_begins_with_a_call_has_null_for_words(
    first: Delta, content: str | None, shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        body = {"model": "m", "messages": SAYING, "stream": True}
        asking = asyncio.create_task(at.http.post("/v1/chat/completions", json=body))
        attempt_log = at.relay.attempt_log(await claimed(at))
        for event in (first, Done(finish_reason="tool_calls")):
            attempt_log.append(event)
        await attempt_log.flush()
        line = (await asking).text.partition("\n")[0]
        delta = json.loads(line.removeprefix("data: "))["choices"][0]["delta"]

        assert delta == {"role": "assistant", "content": content, "refusal": None}
