"""Failures that users of other systems reported do not happen in a fleet; each test names one."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.processes import worker
from support.relay import Relay, relay_on
from support.shim import serving

from contract.chat import ChatRequest, Message, Tool
from contract.embeddings import EmbedRequest
from contract.jobs import AnyRequest
from contract.result import Result, fold
from workers.scripted.server import ScriptedServer, serve

HELLO = [{"role": "user", "content": "hello"}]
TOOL = Tool(name="lookup", parameters={"type": "object"})


@asynccontextmanager
async def fleet(
    redis_url: str, folder: Path, **env: str
) -> AsyncGenerator[tuple[Relay, ScriptedServer]]:
    """A worker next to a server of scripted models, whose streams are counted."""
    async with serve() as server, relay_on(redis_url) as relay:
        dsn = {"LLM_OLLAMA": server.url.replace("http", "ollama")}
        with worker(redis_url, folder, "ollama", **dsn, **env) as one:
            await one.ready(relay)
            yield relay, server


async def answer(relay: Relay, request: AnyRequest) -> Result:
    record, _ = await relay.queue.enqueue(request, queue=f"ollama.{request.kind}")
    async with asyncio.timeout(20):
        return fold(frame.event for frame in await relay.frames(record.id))


def ask(model: str, **fields: Any) -> ChatRequest:
    return ChatRequest(model=model, messages=(Message(role="user", content="tell"),), **fields)


async def test_who_leaves_an_answer_that_is_not_streamed_stops_the_backend(
    redis_url: str, tmp_path: Path
) -> None:
    # litellm #37140: a client that goes away before the whole answer leaves the backend at work.
    async with fleet(redis_url, tmp_path) as (_, server), httpx.AsyncClient() as http:
        with serving(redis_url) as shim:
            body = {"model": "scripted-story:chunks=900,rate=20", "messages": HELLO}
            headers = {"X-Fleet-On-Disconnect": "cancel_after_s=0.1", "X-Fleet-Backend": "ollama"}
            call = http.post(f"{shim}/v1/chat/completions", json=body, headers=headers, timeout=2)
            asking = asyncio.create_task(call)
            await server.seen.until(lambda seen: seen.open == 1)
            asking.cancel()
            await asyncio.wait({asking})
            await server.seen.until(lambda seen: seen.aborted == 1, limit_s=5.0)

        assert server.seen.open == 0


async def test_a_call_that_broke_off_has_whole_arguments_in_the_end(
    redis_url: str, tmp_path: Path
) -> None:
    # strands #2771: the restart after a read error doubles text and corrupts tools' arguments.
    async with fleet(redis_url, tmp_path) as (relay, _):
        broken = ask("scripted-tools:calls=3,fail=cut:2,times=2", tools=(TOOL,))
        whole = await answer(relay, ask("scripted-tools:calls=3", tools=(TOOL,)))
        result = await answer(relay, broken)

        assert (result.status, result.attempt) == ("done", 3)
        assert result.tool_calls == whole.tool_calls
        assert all(json.loads(call.arguments) for call in result.tool_calls)


async def test_callers_who_lose_patience_while_a_model_loads_load_it_once(
    redis_url: str, tmp_path: Path
) -> None:
    # ollama #7408, LocalAI #10719: a client's timeout aborts the load, and its retries begin anew.
    async with fleet(redis_url, tmp_path) as (_, server), httpx.AsyncClient() as http:
        with serving(redis_url) as shim:
            model = "scripted-story:load=2,chunks=3"
            body = {"model": model, "backend": "ollama", "messages": HELLO}
            headers = {"Idempotency-Key": "patience"}
            for _ in range(5):
                told = await http.post(f"{shim}/api/v1/jobs/chat", json=body, headers=headers)
                job = f"{shim}/api/v1/jobs/{told.json()['id']}"
                with pytest.raises(httpx.ReadTimeout):
                    await http.get(job, params={"wait_s": 30}, timeout=0.2)
            record = (await http.get(job, params={"wait_s": 20}, timeout=30)).json()

        assert record["status"] == "done"
        assert server.seen.requests["/api/chat"] == 1
        assert server.seen.aborted == 0


async def test_many_texts_are_few_requests(redis_url: str, tmp_path: Path) -> None:
    # anything-llm #4529, open-webui #3965: one round trip a text.
    async with fleet(redis_url, tmp_path) as (relay, server):
        texts = tuple(f"text {at}" for at in range(2000))
        result = await answer(relay, EmbedRequest(model="scripted-embed", input=texts))

        assert result.embeddings is not None
        assert result.embeddings.count == 2000
        assert server.seen.requests["/api/embed"] < 100
