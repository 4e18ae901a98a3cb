"""The ledger equals the backend's own count, and limits hold, through real workers.

Subjects: relay/usage/settlement.py, relay/usage/limits.py, workers/run.py.
"""

import asyncio
import json
import signal
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from pydantic_core import to_json
from support.answers import Server, answering
from support.keys import keyed
from support.processes import worker
from support.redis_server import RedisServer
from support.relay import Relay, relay_on

from contract.chat import ChatRequest, Message
from relay.usage.ledger import Ledger, UsageQuery
from workers.scripted.http import StreamedReply, framed

LEASE = {"FLEET_LEASE_S": "1", "FLEET_RENEW_S": "0.3", "FLEET_REAP_S": "0.3"}
PROMPT = "one two six ten"
"""As many tokens by the backend, which counts words, as by our estimate."""
MANY = 200
CAP = 2000
ANSWER = 20


class CountingBackend:
    """Streams words until it stalls, and counts what it has read and written: a word is a token."""

    def __init__(self) -> None:
        self.prompt_tokens = self.completion_tokens = 0
        self.asked: dict[str, int] = {}

    def answer(self, body: dict[str, Any], *, stalls: bool) -> StreamedReply:
        """The first request for a model that `stalls` gets 40 words and no end."""
        number = self.asked[body["model"]] = self.asked.get(body["model"], 0) + 1
        read = sum(len(message["content"].split()) for message in body["messages"])
        is_cut = stalls and number == 1
        count = 40 if is_cut else 25
        self.prompt_tokens += read
        self.completion_tokens += count
        chunks: list[dict[str, Any]] = [
            {"choices": [{"index": 0, "delta": {"content": f"w{at} "}}]} for at in range(count)
        ]
        end: list[dict[str, Any]] = [
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
            {"choices": [], "usage": {"prompt_tokens": read, "completion_tokens": count}},
        ]
        events = [to_json(each) for each in (chunks if is_cut else chunks + end)]
        lines = [b"data: %s\n\n" % event for event in events]
        packets = [framed(line) for line in (lines if is_cut else [*lines, b"data: [DONE]\n\n"])]
        ending = "stall" if is_cut else "end"
        return StreamedReply(packets, "text/event-stream", ending=ending)


@asynccontextmanager
async def counting() -> AsyncGenerator[tuple[CountingBackend, Server]]:
    backend = CountingBackend()
    async with answering(
        whole=lambda body: backend.answer(body, stalls=False),
        killed=lambda body: backend.answer(body, stalls=True),
        cancelled=lambda body: backend.answer(body, stalls=True),
    ) as server:
        yield backend, server


async def enqueue(relay: Relay, model: str) -> str:
    request = ChatRequest(model=model, messages=(Message(role="user", content=PROMPT),))
    return (await relay.queue.enqueue(request, queue="box.chat"))[0].id


async def until_stalled(relay: Relay, job: str) -> None:
    seen = 0
    async with asyncio.timeout(30), aclosing(relay.log.follow(job)) as pages:
        async for frames in pages:
            seen += sum(frame.type == "delta" for frame in frames)
            if seen >= 40:
                return


async def test_the_ledger_equals_the_backends_count_after_kill_9_and_cancel(
    redis_url: str, tmp_path: Path
) -> None:
    async with counting() as (backend, server), relay_on(redis_url) as relay:
        env = {**LEASE, "LLM_BOX": f"vllm://127.0.0.1:{server.port}/v1?slots=8"}
        with worker(redis_url, tmp_path, "box", **env) as first:
            await first.ready(relay)
            whole, killed, cancelled = [
                await enqueue(relay, model) for model in ("whole", "killed", "cancelled")
            ]
            for job in (killed, cancelled):
                await until_stalled(relay, job)
            await relay.queue.cancel(cancelled, by="caller")
            with worker(redis_url, tmp_path, "box", **env):
                first.send(signal.SIGKILL)
                async with asyncio.timeout(30):
                    statuses = [
                        (await relay.frames(job))[-1].type for job in (whole, killed, cancelled)
                    ]
                now = relay.connection.now()
                day = datetime.fromtimestamp(now, UTC).date()
                ((_, counts),) = (
                    await Ledger(relay.connection).read(UsageQuery(day, day, ()))
                ).items()

    assert statuses == ["done", "done", "cancelled"]
    assert backend.asked == {"whole": 1, "killed": 2, "cancelled": 1}
    assert (counts.prompt_tokens, counts.completion_tokens) == (
        backend.prompt_tokens, backend.completion_tokens,
    )  # fmt: skip
    assert (counts.requests, counts.cancelled) == (3, 1)


async def refusals(http: httpx.AsyncClient) -> dict[str, httpx.Response]:
    """One more request on every surface."""
    model, messages = "scripted-story", [{"role": "user", "content": "hi"}]
    chat = {"model": model, "messages": messages}
    return {
        "native": await http.post("/api/v1/jobs/chat", json=chat),
        "openai": await http.post("/v1/chat/completions", json=chat),
        "responses": await http.post("/v1/responses", json={"model": model, "input": "hi"}),
        "anthropic": await http.post("/v1/messages", json={**chat, "max_tokens": ANSWER}),
        "ollama": await http.post("/api/chat", json=chat),
    }


async def test_two_hundred_streams_at_a_limit_use_no_more_than_it(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    """Their backend would write on: no request sets `max_tokens`."""
    with (
        keyed(own_redis.url, answer_tokens=ANSWER) as fleet,
        worker(own_redis.url, tmp_path, LLM_SCRIPTED="scripted://?slots=200") as one,
    ):
        key = fleet.issue("a", limit_tokens_day=CAP)["key"]
        headers = {"authorization": f"Bearer {key}"}
        async with relay_on(own_redis.url) as relay:
            await one.ready(relay)
        async with httpx.AsyncClient(
            base_url=fleet.url,
            headers=headers,
            timeout=60,
            limits=httpx.Limits(max_connections=MANY),
        ) as http:
            messages = [{"role": "user", "content": "hi"}]
            body = {"model": "scripted-story", "stream": True, "messages": messages}
            answers = await asyncio.gather(
                *(http.post("/v1/chat/completions", json=body) for _ in range(MANY))
            )
            usage = (await http.get("/api/v1/usage?group_by=")).json()["total"]
            limits = (await http.get("/api/v1/usage/limits")).json()["tenants"]
            more = {**body, "stream": False, "max_tokens": CAP}
            told = await http.post("/v1/chat/completions", json=more)

    streamed = [each for each in answers if each.status_code == 200]
    refused = [each for each in answers if each.status_code == 429]
    assert len(streamed) + len(refused) == MANY
    assert 0 < usage["prompt_tokens"] + usage["completion_tokens"] <= CAP
    assert usage["completion_tokens"] == ANSWER * len(streamed)
    assert all('"finish_reason":"length"' in each.text for each in streamed)
    assert {each.json()["error"]["code"] for each in refused} == {"insufficient_quota"}
    assert all(each.headers["x-should-retry"] == "false" for each in refused)
    assert all(int(each.headers["retry-after"]) > 0 for each in refused)
    assert limits[0]["limits"][0]["used"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert limits[0]["reserved_jobs"] == 0
    assert (told.status_code, told.json()["error"]["code"]) == (400, "over_limit")


async def test_a_limit_is_told_in_the_words_of_every_surface(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    with (
        keyed(own_redis.url, answer_tokens=ANSWER) as fleet,
        worker(own_redis.url, tmp_path) as one,
    ):
        async with relay_on(own_redis.url) as relay:
            await one.ready(relay)
        key = fleet.issue("a", limit_tokens_minute=ANSWER + 15)["key"]
        headers = {"authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(base_url=fleet.url, headers=headers, timeout=20) as http:
            first = {"Idempotency-Key": "k"}
            path = "/api/v1/jobs/chat?enqueue_anyway=true"
            slow = {
                "model": "scripted-story:rate=1", "backend": "scripted",
                "messages": [{"role": "user", "content": "hi"}],
            }  # fmt: skip
            accepted = await http.post(path, json=slow, headers=first)
            told = await refusals(http)
            again = await http.post(path, json=slow, headers=first)

    assert accepted.status_code == 202, accepted.text
    assert {name: each.status_code for name, each in told.items()} == dict.fromkeys(told, 429)
    assert all(0 < int(each.headers["retry-after"]) <= 65 for each in told.values())
    assert all("limit_tokens_minute" in each.text for each in told.values())
    assert told["native"].json()["code"] == "rate_limited"
    assert told["native"].json()["limit"] == ANSWER + 15
    assert told["openai"].json()["error"]["type"] == "rate_limit_error"
    assert told["openai"].json()["error"]["code"] == "rate_limit_exceeded"
    assert told["anthropic"].json()["error"]["type"] == "rate_limit_error"
    assert json.loads(told["ollama"].text)["error"].startswith("tenant a may use")
    # A repeated request is the job that it has.
    assert (again.status_code, again.json()["id"]) == (202, accepted.json()["id"])
