"""Ollama's API over HTTP: headers, statuses, keep-alives, and errors after the first bytes.

Subjects: api_shim/ollama/chat_routes.py, api_shim/ollama/errors.py, api_shim/following/drop_in.py.
"""

import asyncio
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from support.keys import bearer, keyed
from support.redis_server import RedisServer
from support.relay import words
from support.shim import Stage, lines, serving, stage

from contract.events import Delta, Done, Failed, Reset
from contract.jobs import JobRecord
from relay.claims import StartedJob

ASKING = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture(scope="module")
def hasty(redis_server: RedisServer) -> Iterator[str]:
    """A shim that loses patience at once."""
    with serving(redis_server.url, keepalive_s=0.2) as url:
        yield url


async def claimed(at: Stage) -> StartedJob:
    """The next job, once it is there."""
    async with asyncio.timeout(5):
        while True:
            claim = await at.relay.start_next("scripted.chat", "w1")
            if claim is not None:
                return claim
            await asyncio.sleep(0.01)


async def told(response: httpx.Response) -> list[dict[str, Any]]:
    return [json.loads(line) async for line in lines(response)]


async def test_the_head_of_a_stream_names_the_job_and_what_the_lines_are(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at, asyncio.TaskGroup() as group:
        await at.announce()
        asking = group.create_task(at.http.post("/api/chat", json=ASKING))
        claim = await claimed(at)
        await at.relay.run(claim, *words(2))
        answer = await asking

        assert answer.headers["content-type"] == "application/x-ndjson"
        assert answer.headers["x-fleet-job"] == claim.record.id
        assert [json.loads(line)["done"] for line in answer.text.splitlines()] == [False] * 2 + [
            True
        ]


async def test_a_job_that_waits_is_kept_alive_by_empty_lines(hasty: str, redis_url: str) -> None:
    async with stage(hasty, redis_url) as at, AsyncExitStack() as stack:
        await at.announce()
        response = await stack.enter_async_context(at.http.stream("POST", "/api/chat", json=ASKING))
        claim = await claimed(at)
        await at.relay.run(claim, *words(1))
        heard = await told(response)

        assert heard[0]["message"] == {"role": "assistant", "content": ""}
        assert "".join(line["message"]["content"] for line in heard) == "w0 "


async def test_words_that_are_taken_back_end_the_stream_with_an_error(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at, asyncio.TaskGroup() as group:
        await at.announce()
        answer = group.create_task(opened(at))
        attempt_log = at.relay.attempt_log(await claimed(at))
        attempt_log.append(Delta(content="heard"))
        response = await answer
        heard = (json.loads(line) async for line in lines(response))
        first = await anext(heard)
        for event in (Reset(attempt=2, reason=""), Delta(content="anew"), Done()):
            attempt_log.append(event)
        (last,) = [line async for line in heard]

        assert first["message"]["content"] == "heard"
        assert last["code"] == "answer_restarted"
        assert isinstance(last["error"], str)
        await response.aclose()


async def test_text_that_was_not_sent_is_discarded_silently(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at, asyncio.TaskGroup() as group:
        await at.announce()
        headers = {"Idempotency-Key": "one"}
        asking = group.create_task(at.http.post("/api/chat", json=ASKING, headers=headers))
        events = (*words(2), Reset(attempt=2, reason=""), Delta(content="anew"))
        await at.relay.run(await claimed(at), *events)
        job = (await asking).headers["x-fleet-job"]
        again = await at.http.post("/api/chat", json=ASKING, headers=headers)

        assert job == again.headers["x-fleet-job"]
        assert "".join(said(again)) == "anew"


def said(answer: httpx.Response) -> list[str]:
    return [json.loads(line)["message"]["content"] for line in answer.text.splitlines()]


async def opened(at: Stage) -> httpx.Response:
    """The head of an answer, once it is there."""
    asking = at.http.build_request("POST", "/api/chat", json=ASKING)
    return await at.http.send(asking, stream=True)


async def test_a_whole_answer_can_be_begun_anew(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at, asyncio.TaskGroup() as group:
        await at.announce()
        asking = group.create_task(at.http.post("/api/chat", json={**ASKING, "stream": False}))
        await at.relay.run(
            await claimed(at), *words(2), Reset(attempt=2, reason=""), Delta(content="anew")
        )

        assert (await asking).json()["message"]["content"] == "anew"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("model_missing", 404),
        ("not_supported", 400),
        ("context_exceeded", 400),
        ("backend_busy", 503),
        ("server_fault", 502),
        ("deadline_exceeded", 504),
        ("internal_error", 500),
    ],
)
async def test_a_job_that_fails_before_its_first_word_has_a_status(
    code: str, status: int, shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at, asyncio.TaskGroup() as group:
        await at.announce()
        asking = group.create_task(
            at.http.post("/api/generate", json={"model": "m", "prompt": "x"})
        )
        attempt_log = at.relay.attempt_log(await claimed(at))
        attempt_log.append(Failed(code=code, message="why"))
        await attempt_log.flush()
        answer = await asking

        assert answer.status_code == status
        assert (answer.json()["code"], answer.headers["x-fleet-job"]) == (code, attempt_log.id)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "not valid JSON"),
        (b"", "body"),
        (b'{"prompt": "x"}', "model: required"),
        (b'{"model": "m", "prompt": 3}', "prompt"),
        (
            b'{"model": "m", "prompt": "x", "options": {"temperature": "hot"}}',
            "options.temperature",
        ),
        (b'{"model": "m", "prompt": "x", "format": "yaml"}', "format"),
        (b'{"model": "m", "prompt": "x", "keep_alive": "soon"}', "keep_alive"),
    ],
)
async def test_what_is_wrong_is_a_400_in_words(
    body: bytes, words: str, shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        answer = await at.http.post("/api/generate", content=body)

        assert answer.status_code == 400
        assert words in answer.json()["error"]


async def test_a_full_queue_is_a_busy_server(redis_server: RedisServer, redis_url: str) -> None:
    with serving(redis_url, queue_limit=1) as url:
        async with stage(url, redis_url) as at:
            await at.announce()
            await at.http.post("/api/v1/jobs/chat", json=ASKING)
            answer = await at.http.post("/api/chat", json=ASKING)

            assert answer.status_code == 503
            assert answer.json()["error"].startswith("server busy, please try again")
            assert int(answer.headers["retry-after"]) >= 1


async def test_a_name_with_and_without_its_tag_is_the_same_model(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at, asyncio.TaskGroup() as group:
        await at.announce("scripted", "m:latest", "n")
        for name in ("m", "m:latest", "n:latest"):
            asking = group.create_task(at.http.post("/api/chat", json={**ASKING, "model": name}))
            await at.relay.run(await claimed(at))
            assert json.loads((await asking).text)["model"] == name


async def test_where_several_backends_could_be_meant_a_header_selects_one(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        for name in ("one", "two"):
            await at.announce(name, "m")
        body = {"model": "m"}
        unsure = await at.http.request("DELETE", "/api/delete", json=body)
        deleting = at.http.request(
            "DELETE", "/api/delete", json=body, headers={"X-Fleet-Backend": "two"}
        )
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await deleting
        (job,) = (await at.http.get("/api/v1/jobs")).json()["jobs"]

        assert unsure.status_code == 400
        assert "X-Fleet-Backend" in unsure.json()["error"]
        assert job["backend"] == "two"


async def test_jobs_of_this_surface_end_with_their_callers(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        policies: list[object] = []
        for headers in ({}, {"X-Fleet-On-Disconnect": "continue"}):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await at.http.post("/api/chat", json=ASKING, headers=headers)
        for job in (await at.http.get("/api/v1/jobs")).json()["jobs"]:
            record = await ended(at, job["id"]) if job["on_disconnect"] == "cancel" else None
            policies.append((job["on_disconnect"], record and record.status))

        assert policies == [("continue", None), ("cancel", "cancelled")]


async def ended(at: Stage, job_id: str) -> JobRecord:
    await at.http.get(f"/api/v1/jobs/{job_id}?wait_s=5")
    return await at.relay.records.get(job_id)


async def test_a_call_without_a_key_is_refused_in_this_surfaces_words(
    own_redis: RedisServer,
) -> None:
    with keyed(own_redis.url) as shim:
        refused = httpx.get(f"{shim.url}/api/tags")
        let_in = httpx.get(f"{shim.url}/api/tags", headers=bearer(shim.key))
        beat = httpx.get(shim.url)

    assert refused.status_code == 401
    assert refused.json()["code"] == "not_authenticated"
    assert (let_in.status_code, beat.text) == (200, "Ollama is running")


async def test_native_paths_under_api_are_native(shim: str) -> None:
    async with httpx.AsyncClient(base_url=shim) as http:
        native, theirs = await http.get("/api/v1/nothing"), await http.get("/api/nothing")

        assert native.headers["content-type"] == "application/problem+json"
        assert set(theirs.json()) == {"error", "code"}


@pytest.mark.parametrize("stream", [True, False])
async def test_a_failed_pull_of_a_missing_model_does_not_advise_a_pull(
    shim: str, redis_url: str, *, stream: bool
) -> None:
    async with stage(shim, redis_url) as at, asyncio.TaskGroup() as group:
        await at.announce()
        body = {"model": "nobody-has-it", "stream": stream}
        asking = group.create_task(at.http.post("/api/pull", json=body))
        async with asyncio.timeout(5):
            while (claim := await at.relay.start_next("scripted.pull", "w1")) is None:
                await asyncio.sleep(0.01)
        attempt_log = at.relay.attempt_log(claim)
        why = "pull model manifest: file does not exist"
        attempt_log.append(Failed(code="model_missing", message=why))
        await attempt_log.flush()
        answer = await asking

        assert json.loads(answer.text.splitlines()[-1])["error"] == why
