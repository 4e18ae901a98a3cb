"""Putting jobs on queues, and everything that keeps one from getting there."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.shim import CHAT, problem, serving, stage

CHAT_PATH = "/api/v1/jobs/chat"
SEND = "send a value that is"
NAME = "^[a-z][a-z0-9_-]{0,39}$"
ROLES = "'system', 'user', 'assistant' or 'tool'"


async def test_a_chat_is_accepted_with_the_address_to_follow_it(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        answer = await at.http.post(CHAT_PATH, json={**CHAT, "backend": "scripted"})
        job = answer.json()

        assert answer.status_code == 202
        assert job["status"] == "queued"
        assert (job["queue"], job["position"], job["eta_s"]) == ("scripted.chat", 1, None)
        assert job["events_url"] == f"/api/v1/jobs/{job['id']}/events"
        assert answer.headers["location"] == f"/api/v1/jobs/{job['id']}"
        assert answer.headers["x-fleet-job"] == job["id"]


BODIES: dict[str, dict[str, Any]] = {
    "chat": CHAT,
    "embed": {"model": "m", "input": ["ä", "🦜"]},
    "pull": {"model": "new"},
    "image": {"model": "m", "prompt": "a lighthouse"},
    "show": {"model": "m"},
    "delete": {"model": "m"},
    "copy": {"model": "m", "destination": "n"},
    "create": {"model": "n", "source": "m"},
    "load": {"model": "m"},
    "unload": {"model": "m"},
    "count": CHAT,
    "rerank": {"model": "m", "query": "q", "documents": ["a", "ä"]},
}


@pytest.mark.parametrize("kind", BODIES)
async def test_every_kind_reaches_its_own_queue(kind: str, shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        answer = await at.http.post(f"/api/v1/jobs/{kind}", json=BODIES[kind])
        request = await at.relay.records.request(answer.json()["id"])

        assert answer.json()["queue"] == f"scripted.{kind}"
        sent = request.model_dump(mode="json", include=set(BODIES[kind]), exclude_defaults=True)
        assert "model" in sent
        assert request.backend == "scripted"


async def test_a_request_of_any_language_arrives_as_it_was_sent(shim: str, redis_url: str) -> None:
    text = "Grüße, 世界, 🦜\u2028\x00"
    async with stage(shim, redis_url) as at:
        await at.announce()
        body = {"model": "m", "messages": [{"role": "user", "content": text}]}
        answer = await at.http.post(CHAT_PATH, json=body)
        request = await at.relay.records.request(answer.json()["id"])

        assert request.messages[0].text == text  # type: ignore[union-attr]


async def test_an_unknown_backend_is_answered_with_close_names(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce("ollama")
        await at.announce("gemini")
        answer = await at.http.post(CHAT_PATH, json={**CHAT, "backend": "olama"})

        assert problem(answer, 404, "unknown_backend")["matches"] == ["ollama"]


async def test_an_unknown_model_is_answered_with_close_names(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce("ollama", "llama3.2:3b", "nomic-embed-text")
        answer = await at.http.post(CHAT_PATH, json={**CHAT, "model": "Llama3.2"})

        assert problem(answer, 404, "unknown_model")["matches"] == ["llama3.2:3b"]


async def test_a_backend_without_the_capability_is_refused_with_its_capabilities(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce(capabilities=("embed", "show"))
        answer = await at.http.post(CHAT_PATH, json={**CHAT, "backend": "scripted"})

        assert problem(answer, 400, "not_supported")["capabilities"] == ["embed", "show"]


async def test_without_any_worker_the_answer_is_503_with_retry_after(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        for body in (CHAT, {**CHAT, "backend": "scripted"}):
            answer = await at.http.post(CHAT_PATH, json=body)

            assert problem(answer, 503, "no_worker")["retryable"] is True
            assert answer.headers["retry-after"] == "5"


async def test_enqueue_anyway_waits_for_a_worker_to_come(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        body = {**CHAT, "backend": "scripted"}
        answer = await at.http.post(CHAT_PATH, json=body, params={"enqueue_anyway": True})

        assert answer.status_code == 202
        assert (await at.relay.claim()).record.id == answer.json()["id"]


async def test_a_backend_that_has_been_here_is_not_unknown(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce("other")
        await at.relay.enqueue()
        answer = await at.http.post(CHAT_PATH, json={**CHAT, "backend": "scripted"})

        problem(answer, 503, "no_worker")


async def test_a_draining_worker_takes_nothing_new(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce(draining=True)
        body = {**CHAT, "backend": "scripted", "on_no_worker": "refuse"}
        answer = await at.http.post(CHAT_PATH, json=body)

        problem(answer, 503, "no_worker")


async def test_a_full_queue_is_429_with_retry_after(redis_url: str) -> None:
    with serving(redis_url, queue_limit=1) as shim:
        async with stage(shim, redis_url) as at:
            await at.announce()
            await at.http.post(CHAT_PATH, json=CHAT)
            answer = await at.http.post(CHAT_PATH, json=CHAT)

            full = problem(answer, 429, "queue_full")
            assert int(answer.headers["retry-after"]) >= 1
            assert full["retryable"] is True


async def test_an_unknown_kind_is_answered_with_the_close_one(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        answer = await at.http.post("/api/v1/jobs/embedd", json={})

        assert problem(answer, 404, "unknown_kind")["matches"] == ["embed"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"messages": []}, ("model", "missing", "required", "add it")),
        ({**CHAT, "zzz": 1}, ("zzz", "extra_forbidden", None, "remove it")),
        (
            {**CHAT, "temprature": 1},
            ("temprature", "extra_forbidden", None, "rename it to temperature"),
        ),
        (
            {**CHAT, "temperature": 9},
            ("temperature", "less_than_equal", "at most 5.0", f"{SEND} at most 5.0"),
        ),
        (
            {**CHAT, "messages": []},
            ("messages", "too_short", "at least 1 long", f"{SEND} at least 1 long"),
        ),
        (
            {**CHAT, "backend": "No!"},
            ("backend", "string_pattern_mismatch", f"matching {NAME}", f"{SEND} matching {NAME}"),
        ),
        (
            {**CHAT, "messages": [{"role": "robot"}]},
            ("messages.0.role", "literal_error", f"one of {ROLES}", f"{SEND} one of {ROLES}"),
        ),
        (
            {**CHAT, "messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]},
            ("messages.0.content.0.text", "string_type", None, "send a string"),
        ),
        (
            {**CHAT, "kind": "embed"},
            ("kind", "literal_error", "one of 'chat'", f"{SEND} one of 'chat'"),
        ),
    ],
)
async def test_a_wrong_field_is_named_with_limit_and_remedy(
    body: dict[str, Any], expected: tuple[str | None, ...], shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        errors = problem(await at.http.post(CHAT_PATH, json=body), 422, "invalid_request")["errors"]
        names = ("field", "code", "limit", "remedy")

        assert expected in [tuple(error.get(name) for name in names) for error in errors]
        assert {error["where"] for error in errors} == {"body"}


@pytest.mark.parametrize(
    "body",
    [b"{", b'{"model": NaN}', b"\xff\xfe{}", b'{"model": "\xe4"}', b'{"model": "\\ud800"}',
     b"[" * 10_000],
)  # fmt: skip
async def test_a_body_that_is_no_json_is_400(body: bytes, shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        headers = {"Content-Type": "application/json; charset=utf-8"}
        answer = await at.http.post(CHAT_PATH, content=body, headers=headers)

        problem(answer, 400, "invalid_json")


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b'"text"', b"1"])
async def test_a_body_that_is_no_object_is_422(body: bytes, shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        headers = {"Content-Type": "application/json"}
        answer = await at.http.post(CHAT_PATH, content=body, headers=headers)

        assert problem(answer, 422, "invalid_request")["errors"][0]["field"] == "body"


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "text/plain"},
        {},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
)
async def test_a_body_must_have_a_json_content_type(
    headers: dict[str, str], shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        answer = await at.http.post(CHAT_PATH, content=json.dumps(CHAT).encode(), headers=headers)

        problem(answer, 415, "unsupported_media_type")


async def test_fifty_megabytes_are_too_many_announced_or_not(shim: str, redis_url: str) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield b" " * 2**20

    async with stage(shim, redis_url) as at:
        headers = {"Content-Type": "application/json"}
        for content in (b" " * 50 * 2**20, chunks()):
            answer = await at.http.post(CHAT_PATH, content=content, headers=headers)

            assert "MiB" in problem(answer, 413, "payload_too_large")["detail"]
        assert (await at.http.get("/healthz")).status_code == 200


async def test_what_a_caller_sent_is_not_repeated_to_them(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        body = {"model": 5, "messages": "my secret", "temperature": "also secret"}
        answer = await at.http.post(CHAT_PATH, json=body)

        assert "secret" not in answer.text
