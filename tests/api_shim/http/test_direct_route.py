"""Requests that pass FastAPI by get the responses that they would get from it.

Subjects: api_shim/http/direct_route.py, api_shim/http/ordinary_call.py.
"""

import asyncio
import json
import logging
from typing import Any

import httpx
import pytest
from support.keys import bearer, client, keyed
from support.redis_server import RedisServer
from support.shim import CHAT, Stage, eventually, problem, serving, stage

from contract.events import Delta, Done, Event

PLAIN, THROUGH_FASTAPI = "application/json", "application/json; charset=utf-8"
EMBED = {"model": "m", "input": ["one", "two"]}
BODIES: dict[str, dict[str, bytes]] = {
    "/api/v1/jobs/chat": {
        "good": json.dumps(CHAT).encode(),
        "no model, a field too many": b'{"messages": [], "tempo": 1}',
        "wrong inside": b'{"model": "m", "messages": [{"role": "pope", "content": 7}]}',
        "a list": b"[1]",
        "no JSON": b"{",
        "NaN": b'{"model": "m", "temperature": NaN}',
        "half a surrogate": b'{"model": "\\ud800"}',
        "another model": json.dumps({**CHAT, "model": "other"}).encode(),
    },
    "/api/v1/jobs/embed": {
        "good": json.dumps(EMBED).encode(),
        "no texts": b'{"model": "m", "input": []}',
        "a number": b'{"model": "m", "input": [1.5]}',
    },
    "/v1/chat/completions": {
        "no messages": b'{"model": "m"}',
        "wrong inside": b'{"model": "m", "messages": [{"role": "user", "content": 7}]}',
        "nothing": b"null",
        "no JSON": b"]",
    },
    "/v1/messages": {
        "no messages": b'{"model": "m", "max_tokens": 5, "messages": []}',
        "no limit": b'{"model": "m", "messages": [{"role": "user", "content": "hi"}]}',
        "wrong inside": b'{"model": "m", "max_tokens": 5, "messages": [{"role": "pope"}]}',
        "no JSON": b"]",
    },
    "/v1/embeddings": {
        "a number": b'{"model": "m", "input": 1.5}',
        "no texts": b'{"model": "m", "input": []}',
    },
}
CASES = [(path, name) for path, bodies in BODIES.items() for name in bodies]


def comparable(response: httpx.Response) -> tuple[int, dict[str, str], Any]:
    body = response.json()
    changing = {"id", "events_url", "request_id", "position", "reason"}
    kept = {name: value for name, value in body.items() if name not in changing}
    headers = {
        name: "set"
        if name in {"date", "x-request-id", "request-id", "x-fleet-job", "location"}
        else value
        for name, value in response.headers.items()
        if name != "content-length"
    }
    return response.status_code, headers, kept


async def both(at: Stage, path: str, body: bytes) -> list[Any]:
    kinds = (PLAIN, THROUGH_FASTAPI)
    sent = [await at.http.post(path, content=body, headers={"Content-Type": k}) for k in kinds]
    return [comparable(each) for each in sent]


@pytest.mark.parametrize(("path", "name"), CASES)
async def test_a_direct_answer_is_the_one_that_fastapi_gives(
    path: str, name: str, shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        direct, through_fastapi = await both(at, path, BODIES[path][name])

    assert direct == through_fastapi


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({"Idempotency-Key": "k"}, ""),
        ({"X-Fleet-Priority": "urgent"}, ""),
        ({"X-Fleet-On-Disconnect": "never"}, ""),
        ({"X-Fleet-Backend": "NO NAME"}, ""),
        ({"Content-Encoding": "gzip"}, ""),
        ({"Content-Type": "text/plain"}, ""),
        ({}, "?limit=1"),
    ],
)
async def test_a_request_with_more_fields_is_served_by_fastapi(
    headers: dict[str, str], query: str, shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        sent = {"Content-Type": PLAIN, **headers}
        path = f"/api/v1/jobs/chat{query}"
        answer = await at.http.post(path, content=json.dumps(CHAT), headers=sent)

    is_accepted = answer.status_code == 202
    assert is_accepted == ("Idempotency-Key" in headers)


async def test_a_backend_in_a_header_is_chosen(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce("one")
        await at.announce("two")
        answer = await at.http.post(
            "/api/v1/jobs/chat", json=CHAT, headers={"X-Fleet-Backend": "two"}
        )

    assert answer.json()["queue"] == "two.chat"


HEADS: tuple[dict[str, str], ...] = (
    {"X-Forwarded-For": "127.0.0.1"},
    {"Host": "evil.example"},
    {"X-Request-Id": "mine"},
    {"X-Request-Id": "not mine"},
    {"Authorization": "Bearer sk-anything"},
)


@pytest.mark.parametrize("query", ["", "?beta=true"])
async def test_a_message_of_claude_code_is_the_same_both_ways(
    query: str, shim: str, redis_url: str
) -> None:
    body = {**CHAT, "max_tokens": 5, "tempo": 1}
    sent = {
        "anthropic-version": "2023-06-01",
        "anthropic-beta": "effort-1, strange-2",
        "x-claude-code-session-id": "s1",
    }
    async with stage(shim, redis_url) as at:
        await at.announce()
        told = []
        for kind in (PLAIN, THROUGH_FASTAPI):
            head = {**sent, "Content-Type": kind}
            asking = at.http.post(f"/v1/messages{query}", content=json.dumps(body), headers=head)
            answer, _ = await asyncio.gather(asking, one_word(at, Done()))
            record = await at.relay.records.get(answer.headers["x-fleet-job"])
            told.append((*comparable(answer), record.conversation))

    assert told[0] == told[1]
    assert told[0][1]["x-fleet-ignored"] == "tempo, anthropic-beta[strange-2]"
    assert told[0][1]["request-id"] == "set"
    assert told[0][3] == "s1"
    assert told[0][2]["content"][0]["text"] == "word"


@pytest.mark.parametrize("path", BODIES)
async def test_both_ways_judge_a_head_and_a_size_alike(path: str, redis_url: str) -> None:
    cases = [(b"[", head) for head in HEADS] + [(b"[" + b" " * 4000, {})]
    with serving(redis_url, max_body_bytes=4000) as shim:
        async with stage(shim, redis_url) as at:
            for body, head in cases:
                direct, through_fastapi = [
                    comparable(
                        await at.http.post(
                            path, content=body, headers={"Content-Type": kind} | head
                        )
                    )
                    for kind in (PLAIN, THROUGH_FASTAPI)
                ]

                assert direct == through_fastapi
                assert direct[0] in {400, 403, 413}
                assert direct[1]["x-request-id"] == "set"


async def test_both_ways_are_logged_alike(
    shim: str, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with caplog.at_level(logging.INFO, "api_shim.http.access_log"):
        async with stage(shim, redis_url) as at:
            await at.announce()
            await both(at, "/api/v1/jobs/chat", BODIES["/api/v1/jobs/chat"]["good"])
        await eventually(lambda: len(caplog.records) == 2)
    direct, through_fastapi = (each.__dict__["facts"] for each in caplog.records)

    assert direct.keys() == through_fastapi.keys() >= {"request_id", "job", "ms", "bytes"}
    assert (direct["status"], direct["method"]) == (202, "POST")


async def test_a_direct_call_needs_a_valid_key(own_redis: RedisServer) -> None:
    with keyed(own_redis.url) as fleet:
        told = fleet.issue("a")
        async with stage(fleet.url, own_redis.url) as at, fleet.admin as admin:
            await at.announce()
            for headers in ({}, bearer(f"flk_{'0' * 16}_{'A' * 43}"), {"X-Api-Key": "nonsense"}):
                refused = await at.http.post("/api/v1/jobs/chat", json=CHAT, headers=headers)
                problem(refused, 401, "not_authenticated")
                assert refused.headers["www-authenticate"] == "Bearer"
            async with client(fleet.url, told["key"]) as a:
                accepted = await a.post("/api/v1/jobs/chat", json=CHAT)
                await admin.delete(f"/api/v1/keys/{told['id']}")
                refused = await a.post("/api/v1/jobs/chat", json=CHAT)
            record = await at.relay.records.get(accepted.json()["id"])

    assert record.tenant == "a"
    problem(refused, 401, "not_authenticated")


async def test_a_direct_stream_ends_and_its_job_too_when_its_key_is_revoked(
    own_redis: RedisServer,
) -> None:
    with keyed(own_redis.url) as fleet:
        told = fleet.issue("a")
        async with stage(fleet.url, own_redis.url) as at, client(fleet.url, told["key"]) as a:
            await at.announce()
            body = {**CHAT, "stream": True}
            working = asyncio.create_task(one_word(at))
            async with (
                asyncio.timeout(10),
                a.stream("POST", "/v1/chat/completions", json=body) as response,
            ):
                await working
                pieces = response.aiter_bytes()
                first = await anext(pieces)
                async with fleet.admin as admin:
                    await admin.delete(f"/api/v1/keys/{told['id']}")
                    rest = b"".join([piece async for piece in pieces])
            last = (await at.relay.frames(response.headers["x-fleet-job"]))[-1]

    assert b"word" in first
    assert b"[DONE]" not in rest
    assert last.type == "cancelled"


async def one_word(at: Stage, *more: Event) -> None:
    while (claim := await at.relay.start_next("scripted.chat", "w1")) is None:
        await asyncio.sleep(0.01)
    log = at.relay.attempt_log(claim)
    for event in (Delta(content="word"), *more):
        log.append(event)
    await log.flush()
