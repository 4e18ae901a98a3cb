"""Requests that pass FastAPI by get the answers that they would get from it."""

import json
from typing import Any

import httpx
import pytest
from support.shim import CHAT, Stage, stage

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
    "/v1/embeddings": {
        "a number": b'{"model": "m", "input": 1.5}',
        "no texts": b'{"model": "m", "input": []}',
    },
}
CASES = [(path, name) for path, bodies in BODIES.items() for name in bodies]


def comparable(response: httpx.Response) -> tuple[int, str, Any]:
    body = response.json()
    changing = {"id", "events_url", "request_id", "position", "reason"}
    kept = {name: value for name, value in body.items() if name not in changing}
    return response.status_code, response.headers["content-type"], kept


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
