"""Twenty log probabilities of each token stay in the log until they are sent, on every surface.

Subjects: api_shim/following/long_answer.py, api_shim/openai/completions.py.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from support.relay import QUEUE
from support.shim import Stage, stage

from api_shim.following import long_answer
from contract.events import Delta, Event, LogProb, Reset
from relay.claims import StartedJob


def one(word: str, top: tuple[LogProb, ...] = (), *, has_bytes: bool = True) -> LogProb:
    encoded = tuple(word.encode()) if has_bytes else None
    return LogProb(token=word, logprob=-0.5, bytes=encoded, top_logprobs=top)


def token(number: int) -> Delta:
    """A token with what was likely in its place; some are text, and some have none."""
    word = (" w", "\u2028é", '"{', "}", "")[number % 5] * (number % 3) + str(number)
    top = tuple(one(f"{word}{n}", has_bytes=n != 1) for n in range(number % 4))
    return Delta(content=word, logprobs=(one(word, top),))


TOKENS = [token(number) for number in range(300)]
LIKELY = [each for delta in TOKENS for each in delta.logprobs or ()]
TEXT = "".join(each.content or "" for each in TOKENS)
MESSAGES = [{"role": "user", "content": "hello"}]
OF_CHAT = {"messages": MESSAGES, "logprobs": True, "top_logprobs": 3}
OF_RESPONSES = {"input": "hello", "include": ["message.output_text.logprobs"], "top_logprobs": 3}
OF_TEXT = {"prompt": "hello", "logprobs": 3, "max_tokens": 999}
_EVENTS: list[Event] = [Delta(content="no"), Reset(attempt=1, reason="it broke"), *TOKENS]


def alone(each: LogProb) -> dict[str, Any]:
    spelling = None if each.bytes is None else list(each.bytes)
    return {"token": each.token, "logprob": each.logprob, "bytes": spelling}


def in_chat(each: LogProb) -> dict[str, Any]:
    return {**alone(each), "top_logprobs": [alone(top) for top in each.top_logprobs]}


def in_response(each: LogProb) -> dict[str, Any]:
    """The bytes are always there."""
    tops = [alone(top) | {"bytes": list(top.token.encode())} for top in each.top_logprobs]
    return alone(each) | {"bytes": list(each.token.encode()), "top_logprobs": tops}


def in_ollama(each: LogProb) -> dict[str, Any]:
    """What is empty is not there."""
    fields = in_chat(each) | {"top_logprobs": [_filled(alone(top)) for top in each.top_logprobs]}
    return _filled(fields)


def _filled(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value not in (None, [])}


def lists() -> dict[str, Any]:
    """What completions of raw text have."""
    words = [each.token for each in LIKELY]
    return {
        "text_offset": [sum(map(len, words[:at])) for at in range(len(words))],
        "token_logprobs": [-0.5] * len(words),
        "tokens": words,
        "top_logprobs": [{top.token: top.logprob for top in each.top_logprobs} for each in LIKELY],
    }


def of_chat(body: Any) -> Any:
    (choice,) = body["choices"]
    return choice["message"]["content"], choice["logprobs"]["content"]


def of_text(body: Any) -> Any:
    return body["choices"][0]["text"], body["choices"][0]["logprobs"]


def of_ollama(body: Any) -> Any:
    return body.get("response") or body["message"]["content"], body["logprobs"]


def of_responses(body: Any) -> Any:
    (part,) = body["output"][0]["content"]
    return part["text"], part["logprobs"]


class LogprobRoute(NamedTuple):
    """A route whose answers have log probabilities."""

    path: str
    body: dict[str, Any]
    pick: Callable[[Any], Any]
    """Returns the text of an answer, and them."""
    expected: Any


OPENAI = [
    LogprobRoute("/v1/chat/completions", OF_CHAT, of_chat, [in_chat(each) for each in LIKELY]),
    LogprobRoute("/v1/completions", OF_TEXT, of_text, lists()),
    LogprobRoute(
        "/v1/responses", OF_RESPONSES, of_responses, [in_response(each) for each in LIKELY]
    ),
]
OLLAMA = [
    LogprobRoute(
        path, {**body, "stream": False, "logprobs": True}, of_ollama,
        [in_ollama(each) for each in LIKELY],
    )
    for path, body in (("/api/chat", {"messages": MESSAGES}), ("/api/generate", {"prompt": "x"}))
]  # fmt: skip


async def claimed(at: Stage) -> StartedJob:
    async with asyncio.timeout(10):
        while (claim := await at.relay.start_next(QUEUE, "w1")) is None:
            await asyncio.sleep(0.01)
    return claim


@pytest.fixture(params=[0, 3000, 10**9])
def kept_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Of texts that are passed on as they are."""
    monkeypatch.setattr(long_answer, "KEPT_BYTES", request.param)
    kept: int = request.param
    return kept


@pytest.mark.usefixtures("kept_bytes")
@pytest.mark.parametrize("route", [*OPENAI, *OLLAMA], ids=lambda each: each.path)
async def test_a_whole_answer_has_all_of_them(
    shim: str, redis_url: str, route: LogprobRoute
) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        body = {"model": "m", **route.body}
        asking = asyncio.create_task(at.http.post(route.path, json=body))
        await at.relay.run(await claimed(at), *_EVENTS)
        answer = await asking

    assert answer.status_code == 200, answer.text
    assert route.pick(answer.json()) == (TEXT, route.expected)


MIXED: list[Event] = [
    Delta(logprobs=(one("first"),)),
    *TOKENS[:9],
    *(Delta(thinking=f"t{at}", logprobs=(one(f"t{at}", (one("x"),)),)) for at in range(9)),
    Delta(logprobs=(one("part of a character", (one("x"),)),)),
    Delta(content="\u00e9", logprobs=(one("the rest"),)),
    *(Delta(refusal=f"r{at}", logprobs=(one(f"r{at}", (one("x"),)),)) for at in range(9)),
    Delta(thinking="so", content="and", logprobs=(one("and"),)),
    *TOKENS[:9],
    Delta(content="", logprobs=(one("last"),)),
]


def without_ids(value: Any) -> Any:
    """The same without what is different of each job."""
    if isinstance(value, list):
        return [without_ids(each) for each in value]
    if not isinstance(value, dict):
        return value
    left_out = {"id", "created", "created_at", "completed_at", "encrypted_content"}
    left_out |= {name for name in value if name.endswith("_duration")}
    return {name: without_ids(each) for name, each in value.items() if name not in left_out}


@pytest.mark.parametrize("route", [*OPENAI, *OLLAMA], ids=lambda each: each.path)
async def test_an_answer_of_all_sorts_is_the_same_however_little_of_it_is_held(
    shim: str, redis_url: str, route: LogprobRoute, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    async with stage(shim, redis_url) as at:
        await at.announce()
        for kept in (10**9, 0, 700):
            monkeypatch.setattr(long_answer, "KEPT_BYTES", kept)
            body = {"model": "m", **route.body}
            asking = asyncio.create_task(at.http.post(route.path, json=body))
            await at.relay.run(await claimed(at), *MIXED)
            found.append(without_ids((await asking).json()))

    assert found[0] == found[1] == found[2]


@pytest.mark.usefixtures("kept_bytes")
async def test_a_job_and_a_stored_response_have_all_of_them(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        body = {"model": "m", **OF_RESPONSES, "background": True}
        queued = (await at.http.post("/v1/responses", json=body)).json()
        claim = await claimed(at)
        await at.relay.run(claim, *_EVENTS)
        stored = (await at.http.get(f"/v1/responses/{queued['id']}")).json()
        job = (await at.http.get(f"/api/v1/jobs/{claim.record.id}")).json()

    as_they_are = [each.model_dump(mode="json") for each in LIKELY]
    assert of_responses(stored) == (TEXT, [in_response(each) for each in LIKELY])
    assert (job["result"]["content"], job["result"]["logprobs"]) == (TEXT, as_they_are)


async def test_the_last_events_of_a_stream_have_all_of_them(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        body = {"model": "m", **OF_RESPONSES, "stream": True}
        asking = asyncio.create_task(at.http.post("/v1/responses", json=body))
        await at.relay.run(await claimed(at), *TOKENS)
        answer = (await asking).text
    events = [json.loads(line[6:]) for line in answer.split("\n") if line.startswith("data: {")]
    by_type = {event["type"]: event for event in events}
    expected = [in_response(each) for each in LIKELY]
    deltas = [e["logprobs"] for e in events if e["type"] == "response.output_text.delta"]

    assert [each for listed in deltas for each in listed] == expected
    assert by_type["response.output_text.done"]["logprobs"] == expected
    assert by_type["response.content_part.done"]["part"]["logprobs"] == expected
    assert of_responses(by_type["response.completed"]["response"]) == (TEXT, expected)


@pytest.mark.usefixtures("kept_bytes")
@pytest.mark.parametrize("route", OPENAI, ids=lambda each: each.path)
async def test_a_row_of_a_batch_has_all_of_them(
    shim: str, redis_url: str, route: LogprobRoute
) -> None:
    path, body = route.path, {"model": "m", **route.body}
    row = {"custom_id": "r", "method": "POST", "url": path, "body": body}
    async with stage(shim, redis_url) as at:
        await at.announce()
        upload = {"file": ("rows.jsonl", json.dumps(row).encode())}
        sent = await at.http.post("/v1/files", files=upload, data={"purpose": "batch"})
        wanted = {
            "input_file_id": sent.json()["id"], "endpoint": path, "completion_window": "24h"
        }  # fmt: skip
        batch = (await at.http.post("/v1/batches", json=wanted)).json()
        await at.relay.run(await claimed(at), *_EVENTS)
        async with asyncio.timeout(20):
            while batch["status"] != "completed":
                await asyncio.sleep(0.05)
                batch = (await at.http.get(f"/v1/batches/{batch['id']}")).json()
        lines = (await at.http.get(f"/v1/files/{batch['output_file_id']}/content")).text

    answer = json.loads(lines)["response"]
    assert answer["status_code"] == 200
    assert route.pick(answer["body"]) == (TEXT, route.expected)


@pytest.mark.parametrize("route", [OPENAI[0], *OLLAMA], ids=lambda each: each.path)
async def test_those_of_a_stream_have_the_same_fields(
    shim: str, redis_url: str, route: LogprobRoute
) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        body = {"model": "m", **route.body, "stream": True}
        asking = asyncio.create_task(at.http.post(route.path, json=body))
        await at.relay.run(await claimed(at), *TOKENS)
        answer = (await asking).text
    lines = [line.removeprefix("data: ") for line in answer.split("\n")]
    told = [json.loads(line) for line in lines if line.startswith("{")]
    if route.path.startswith("/v1"):
        likely = [chunk["choices"][0]["logprobs"] or {"content": []} for chunk in told]
        found = [each["content"] for each in likely]
    else:
        found = [line.get("logprobs", []) for line in told]

    assert [entry for entries in found for entry in entries] == route.expected
