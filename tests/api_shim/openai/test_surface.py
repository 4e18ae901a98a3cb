"""OpenAI's API over HTTP, as proxies and clients see it; the test plays the worker.

Subjects: api_shim/openai/chat_routes.py, api_shim/openai/errors.py, api_shim/following/drop_in.py.
"""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import httpx
import jsonschema
import openai
import pytest
from support.keys import keyed
from support.redis_server import RedisServer
from support.shim import Stage, lines, serving, stage

from contract.embeddings import pack
from contract.events import Delta, Done, Failed, Reset, Resumed, Vectors
from relay.claims import StartedJob
from relay.publisher import AttemptLog

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
STREAM: dict[str, Any] = {**CHAT, "stream": True}


async def claimed(at: Stage, kind: str = "chat") -> StartedJob:
    """The next job, when it has come."""
    async with asyncio.timeout(5):
        while True:
            claim = await at.relay.start_next(f"scripted.{kind}", "w1")
            if claim is not None:
                return claim
            await asyncio.sleep(0.01)


async def said(at: Stage, *events: Any, body: Any = STREAM, path: str = "chat/completions") -> Any:
    """The response to a request whose job has these events."""
    await at.announce()
    asking = asyncio.create_task(at.http.post(f"/v1/{path}", json=body))
    attempt_log = at.relay.attempt_log(
        await claimed(at, "embed" if path == "embeddings" else "chat")
    )
    for event in events:
        attempt_log.append(event)
    await attempt_log.flush()
    return await asking


async def begun(at: Stage) -> AttemptLog:
    """The attempt_log of the next job, which has said `a`."""
    attempt_log = at.relay.attempt_log(await claimed(at))
    attempt_log.append(Delta(content="a"))
    return attempt_log


async def until(told: AsyncGenerator[str], words: str) -> None:
    async for line in told:
        if words in line:
            return
    raise AssertionError(f"{words} never came")


def data(answer: httpx.Response) -> list[Any]:
    told = [line[6:] for line in answer.text.split("\n") if line.startswith("data: ")]
    return [each if each == "[DONE]" else json.loads(each) for each in told]


async def test_words_that_are_taken_back_end_the_stream_with_an_error(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        claiming = asyncio.create_task(begun(at))
        async with at.http.stream("POST", "/v1/chat/completions", json=STREAM) as response:
            told = lines(response)
            attempt_log = await claiming
            await until(told, '"content":"a"')
            attempt_log.append(Reset(attempt=2, reason="x"))
            attempt_log.append(Done())
            rest = [line async for line in told if line]

        assert json.loads(rest[-1].removeprefix("data: "))["error"]["code"] == "answer_restarted"


async def test_a_new_attempt_before_any_word_is_not_seen(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        answer = await said(at, Reset(attempt=2, reason="x"), Delta(content="a"), Done())

        assert [c["choices"][0]["delta"].get("content") for c in data(answer)[:-1]] == [
            "",
            "a",
            None,
        ]


async def test_an_answer_that_is_continued_is_one_answer(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        resumed = Resumed(attempt=2, reason="x")
        answer = await said(at, Delta(content="a"), resumed, Delta(content="b"), Done(), body=CHAT)

        assert answer.json()["choices"][0]["message"]["content"] == "ab"


async def test_an_answer_that_does_not_stream_starts_over_unseen(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        reset = Reset(attempt=2, reason="x")
        answer = await said(at, Delta(content="a"), reset, Delta(content="b"), Done(), body=CHAT)

        assert answer.json()["choices"][0]["message"]["content"] == "b"


@pytest.mark.parametrize("body", [CHAT, STREAM])
@pytest.mark.parametrize(
    ("code", "status"),
    [("model_missing", 404), ("context_exceeded", 400), ("server_fault", 502),
     ("deadline_exceeded", 504), ("refused", 400), ("not_supported", 400), ("worker_lost", 503)],
)  # fmt: skip
async def test_an_end_without_words_is_a_status_that_is_not_tried_again(
    code: str, status: int, body: Any, shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        answer = await said(at, Failed(code=code, message="so"), body=body)

        assert (answer.status_code, answer.json()["error"]["message"]) == (status, "so")
        assert answer.headers["x-should-retry"] == "false"
        assert len(answer.headers["x-fleet-job"]) == 32


async def test_a_full_queue_is_429_and_the_client_comes_back_in_time(redis_url: str) -> None:
    with serving(redis_url, queue_limit=1) as shim:
        async with stage(shim, redis_url) as at:
            await at.announce()
            await at.relay.enqueue()
            refused = await at.http.post("/v1/chat/completions", json=CHAT)
            client = openai.AsyncOpenAI(base_url=f"{shim}/v1", api_key="x", max_retries=2)
            async with aclosing_client(client):
                asking = asyncio.create_task(client.chat.completions.create(**CHAT))
                await at.relay.run(await claimed(at))
                await at.relay.run(await claimed(at), Delta(content="at last"))
                answer = await asking

        assert (refused.status_code, refused.json()["error"]["code"]) == (
            429,
            "rate_limit_exceeded",
        )
        assert 1 <= int(refused.headers["retry-after"]) < 120
        assert refused.headers["x-should-retry"] == "true"
        assert answer.choices[0].message.content == "at last"


def aclosing_client(client: openai.AsyncOpenAI) -> Any:
    class Closing:
        aclose = client.close

    return aclosing(Closing())


async def test_who_hangs_up_while_the_job_waits_cancels_it(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        for body in (CHAT, STREAM):
            with pytest.raises(httpx.ReadTimeout):
                await at.http.post("/v1/chat/completions", json=body, timeout=0.3)
        jobs = (await at.http.get("/api/v1/jobs")).json()["jobs"]
        ids = [job["id"] for job in jobs]
        async with asyncio.timeout(5):
            while {(await at.relay.records.get(id)).status for id in ids} != {"cancelled"}:
                await asyncio.sleep(0.02)

        assert len(ids) == 2


async def test_a_shim_that_stops_sends_an_error_in_the_stream(own_redis: RedisServer) -> None:
    serving_it = serving(own_redis.url)
    shim = serving_it.__enter__()
    async with stage(shim, own_redis.url) as at:
        await at.announce()
        claiming = asyncio.create_task(begun(at))
        async with at.http.stream("POST", "/v1/chat/completions", json=STREAM) as response:
            told = lines(response)
            await claiming
            await until(told, '"content":"a"')
            stopping = asyncio.create_task(asyncio.to_thread(serving_it.__exit__, *[None] * 3))
            rest = [line async for line in told if line]
            await stopping

    assert json.loads(rest[-1].removeprefix("data: "))["error"]["code"] == "shim_stopping"


async def test_a_key_is_asked_for_in_openai_s_words(own_redis: RedisServer) -> None:
    with keyed(own_redis.url) as fleet:
        async with httpx.AsyncClient(base_url=fleet.url) as http:
            wrong = await http.get("/v1/models", headers={"authorization": "Bearer sk-none"})
            right = await http.get("/v1/models", headers={"authorization": f"Bearer {fleet.key}"})

    assert (wrong.status_code, wrong.json()["error"]["code"]) == (401, "invalid_api_key")
    assert right.json() == {"object": "list", "data": []}


async def test_unknown_paths_are_refused_in_the_same_format(shim: str) -> None:
    async with httpx.AsyncClient(base_url=shim) as http:
        absent = await http.post("/v1/audio/speech", json={})
        method = await http.get("/v1/chat/completions")
        text = await http.post("/v1/chat/completions", content="model=m")
        broken = await http.post(
            "/v1/chat/completions", content="{", headers={"content-type": "application/json"}
        )

    told = [(a.status_code, a.json()["error"]["code"]) for a in (absent, method, text, broken)]
    assert told == [
        (404, "no_such_path"),
        (405, "method_not_allowed"),
        (415, "unsupported_media_type"),
        (400, "invalid_json"),
    ]


async def test_a_wrong_field_is_named(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        answer = await at.http.post("/v1/chat/completions", json={**CHAT, "top_p": "high"})
        header = await at.http.post(
            "/v1/chat/completions", json=CHAT, headers={"X-Fleet-Priority": "urgent"}
        )

        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "top_p")
        assert (header.status_code, header.json()["error"]["param"]) == (400, "X-Fleet-Priority")


async def test_a_page_elsewhere_cannot_send_a_form(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        form = {"model": (None, "m"), "prompt": (None, "p"), "image": ("a.png", b"x")}
        answer = await at.http.post(
            "/v1/images/edits", files=form, headers={"origin": "https://elsewhere.test"}
        )

        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "cross_origin")


@pytest.mark.parametrize(
    ("files", "param"),
    [
        ({"model": (None, "m"), "prompt": (None, "p")}, "image"),
        ({"model": (None, "m"), "image": ("a.png", b"x")}, "prompt"),
        ({"model": (None, "m"), "prompt": (None, "p"), "n": (None, "x")}, "n"),
    ],
)
async def test_what_a_form_lacks_is_named(
    files: Any, param: str, shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        answer = await at.http.post("/v1/images/edits", files=files)

        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_ids_of_tokens_are_refused_with_the_remedy_where_they_are_not_taken(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        report = await at.announce()
        backend = report.backends[0].model_copy(update={"grants": ()})
        await at.relay.roster.report(report.model_copy(update={"backends": (backend,)}))
        answer = await at.http.post("/v1/embeddings", json={"model": "m", "input": [[1, 2]]})

        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "not_supported")
        assert "check_embedding_ctx_length=False" in answer.json()["error"]["message"]


async def test_what_the_backend_ignored_is_named_in_a_header(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        answer = await said(at, Delta(content="a"), Done(ignored=("seed", "min_p")), body=CHAT)

        assert answer.headers["x-fleet-ignored"] == "seed, min_p"


async def test_answers_are_as_documented(shim: str, redis_url: str) -> None:
    document = httpx.get(f"{shim}/openapi.json").json()
    async with stage(shim, redis_url) as at:
        vectors = Vectors(index=0, count=1, dimension=2, data=pack([[1.0, 2.0]]))
        embed, raw = {"model": "m", "input": "a"}, {"model": "m", "prompt": "a"}
        words = (Delta(content="a"), Done())
        told = [
            ("ChatCompletion", await said(at, *words, body=CHAT)),
            ("TextCompletion", await said(at, *words, path="completions", body=raw)),
            ("EmbeddingList", await said(at, vectors, Done(), path="embeddings", body=embed)),
            ("OpenAIModelList", await at.http.get("/v1/models")),
            ("OpenAIModel", await at.http.get("/v1/models/m")),
            ("OpenAIErrorResponse", await at.http.get("/v1/models/none")),
        ]  # fmt: skip
    for name, answer in told:
        found = [key for key in document["components"]["schemas"] if key == name]
        schema = {"$ref": f"#/components/schemas/{found[0]}", "components": document["components"]}

        assert list(jsonschema.Draft202012Validator(schema).iter_errors(answer.json())) == []
