"""The keys and policies of conversations mean the same on every surface.

Subjects: api_shim/http/headers.py, api_shim/http/ordinary_call.py, api_shim/http/problems.py.
"""

import asyncio
from typing import Any

import pytest
from support.shim import stage

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
MESSAGE = {**CHAT, "max_tokens": 9}
NATIVE, OPENAI, ANTHROPIC = "/api/v1/jobs/chat", "/v1/chat/completions", "/v1/messages"
RESPONSES = "/v1/responses"
KEY = {"X-Fleet-Conversation": "c"}
REJECT = {**KEY, "X-Fleet-Conversation-Policy": "reject"}
"""Whatever the surface, this is the same conversation."""
Named = tuple[str, dict[str, Any], dict[str, str], str | None]
"""Path, fields and headers of a request, and the key of its conversation."""


async def waiting(at: Any, path: str, body: Any, headers: Any) -> Any:
    """Send a request whose job waits, and return its record once it is there."""
    call = asyncio.create_task(at.http.post(path, json=body, headers=headers))
    async with asyncio.timeout(10):
        while True:
            jobs = (await at.http.get("/api/v1/jobs")).json()["jobs"]
            if jobs:
                call.cancel()
                return jobs[0]
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "named",
    [
        (NATIVE, {"conversation": "c"}, {}, "c"),
        (NATIVE, {"conversation": "c"}, {"X-Fleet-Conversation": "over"}, "over"),
        (NATIVE, {}, {"X-Fleet-Conversation": "caf\xe9 7"}, "caf\xe9 7"),
        (NATIVE, {}, {"X-Claude-Code-Session-Id": "s"}, "s"),
        (OPENAI, {"prompt_cache_key": "p"}, {}, "p"),
        (OPENAI, {"prompt_cache_key": ""}, {}, None),
        (RESPONSES, {"prompt_cache_key": "p"}, {}, "p"),
        (ANTHROPIC, {"metadata": {"user_id": "u"}}, {}, "u"),
        (
            ANTHROPIC,
            {"metadata": {"user_id": "u"}},
            {"X-Claude-Code-Session-Id": "s", "anthropic-version": "2023-06-01"},
            "s",
        ),
        ("/api/chat", {}, KEY, "c"),
        (NATIVE, {}, {}, None),
    ],
)
async def test_what_names_a_conversation(named: Named, shim: str, redis_url: str) -> None:
    path, fields, headers, key = named
    body = {"model": "m", "input": "hello"} if path == RESPONSES else MESSAGE
    body = CHAT if path in {NATIVE, OPENAI} else body
    coded = {name: value.encode("latin-1") for name, value in headers.items()}
    async with stage(shim, redis_url) as at:
        await at.announce()
        record = await waiting(at, path, {**body, **fields}, coded)

    assert record["conversation"] == key


async def test_a_second_message_is_refused_in_the_words_of_the_surface(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        first = (await at.http.post(NATIVE, json=CHAT, headers=KEY)).json()["id"]
        native = await at.http.post(NATIVE, json=CHAT, headers=REJECT)
        openai = await at.http.post(OPENAI, json=CHAT, headers=REJECT)
        responses = await at.http.post(
            RESPONSES, json={"model": "m", "input": "hello"}, headers=REJECT
        )
        anthropic = await at.http.post(ANTHROPIC, json=MESSAGE, headers=REJECT)
        ollama = await at.http.post("/api/chat", json=CHAT, headers=REJECT)
        every = (native, openai, responses, anthropic, ollama)
        jobs = (await at.http.get("/api/v1/jobs")).json()["jobs"]

    assert [each.status_code for each in every] == [409] * 5
    assert native.json()["code"] == "conversation_busy"
    assert native.json()["job"] == first
    assert openai.json()["error"]["code"] == "conversation_busy"
    assert openai.headers["x-should-retry"] == "false"
    assert anthropic.json()["type"] == "error"
    assert ollama.json()["code"] == "conversation_busy"
    assert all("conversation_policy" in each.text for each in every)
    assert [job["id"] for job in jobs] == [first]


async def test_a_message_that_interrupts_cancels_the_one_before(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        first = (await at.http.post(NATIVE, json=CHAT, headers=KEY)).json()["id"]
        headers = {**KEY, "X-Fleet-Conversation-Policy": "interrupt"}
        second = await at.http.post(NATIVE, json=CHAT, headers=headers)
        ended = (await at.http.get(f"/api/v1/jobs/{first}")).json()

    assert second.status_code == 202
    assert ended["status"] == "cancelled"


@pytest.mark.parametrize(
    ("headers", "fields", "field"),
    [
        ({"X-Fleet-Conversation": ""}, {}, "X-Fleet-Conversation"),
        ({"X-Fleet-Conversation": "x" * 513}, {}, "X-Fleet-Conversation"),
        ({"X-Fleet-Conversation-Policy": "wait"}, {}, "X-Fleet-Conversation-Policy"),
        ({}, {"conversation": ""}, "conversation"),
        ({}, {"conversation": 7}, "conversation"),
        ({}, {"conversation_policy": "Queue"}, "conversation_policy"),
    ],
)
async def test_a_wrong_key_or_policy_is_named(
    headers: dict[str, str], fields: Any, field: str, shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        answer = await at.http.post(NATIVE, json={**CHAT, **fields}, headers=headers)

    assert answer.status_code == 422
    assert [each["field"] for each in answer.json()["errors"]] == [field]


async def test_a_key_without_an_end_is_no_reason_to_refuse_a_foreign_client(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        long = {"prompt_cache_key": "k" * 100_000}
        record = await waiting(at, OPENAI, {**CHAT, **long}, {})

    assert len(record["conversation"]) == 64
