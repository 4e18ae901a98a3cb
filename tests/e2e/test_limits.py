"""Limits that are reached: said aloud, and never a silent loss."""

import asyncio
import json
import signal
from pathlib import Path

import httpx
import pytest
from support.processes import worker
from support.redis_server import RedisServer
from support.relay import relay_on
from support.shim import sse
from support.shims import shim

from contract.chat import ChatRequest, Message
from contract.embeddings import EmbedRequest
from contract.events import Delta
from contract.jobs import AnyRequest
from workers.scripted.server import serve

CAP = {"FLEET_LOG_CAP_BYTES": "20000"}
STORY = ChatRequest(
    model="scripted-story:chunks=100000", messages=(Message(role="user", content="tell"),)
)
VECTORS = EmbedRequest(model="scripted-embed:dim=512", input=("a",) * 2000)


@pytest.mark.parametrize("request_", [STORY, VECTORS], ids=["chat", "embed"])
async def test_an_answer_that_is_too_long_fails_and_keeps_its_output(
    redis_url: str, tmp_path: Path, request_: AnyRequest
) -> None:
    async with serve() as server, relay_on(redis_url) as relay:
        dsn = {"LLM_OLLAMA": server.url.replace("http", "ollama")}
        with worker(redis_url, tmp_path, "ollama", **dsn, **CAP) as one:
            await one.ready(relay)
            record, _ = await relay.queue.enqueue(request_, queue=f"ollama.{request_.kind}")
            async with asyncio.timeout(20):
                frames = await relay.frames(record.id)
            await server.seen.until(lambda seen: seen.open == 0, limit_s=1.0)

        said_bytes = sum(len(frame.to_wire()) for frame in frames[:-1])
        assert (frames[-1].event.code, frames[-1].event.retryable) == ("log_full", False)
        assert "FLEET_LOG_CAP_BYTES (20000)" in frames[-1].event.message
        assert [frame.id.seq for frame in frames] == list(range(len(frames)))
        assert said_bytes < 20_500  # with what was there before the attempt
        assert said_bytes > 18_000 or request_ is VECTORS  # of which one event may be larger


async def test_the_cap_is_the_jobs_and_not_each_attempts(redis_url: str, tmp_path: Path) -> None:
    story = STORY.model_copy(update={"model": "scripted-story:chunks=10"})
    async with relay_on(redis_url) as relay:
        record, _ = await relay.queue.enqueue(story, queue="scripted.chat")
        claim = await relay.start_next("scripted.chat", "before")
        assert claim is not None
        attempt_log = relay.attempt_log(claim)
        for at in range(10):
            attempt_log.append(Delta(content="x" * 2000, thinking=f"{at}"))
        await attempt_log.flush()
        await relay.leases.release_worker("before")
        with worker(redis_url, tmp_path, **CAP):
            async with asyncio.timeout(20):
                frames = await relay.frames(record.id)

        assert frames[-1].event.code == "log_full"


async def test_a_shim_that_redis_drops_for_being_slow_continues_from_the_log(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    # redis-py #1261, redis #3893: Redis drops a subscriber that does not read, and what it missed.
    own_redis.say("CONFIG", "SET", "client-output-buffer-limit", "pubsub 65536 0 0")
    words = [Delta(content=f"{at} ".ljust(2**16, "x")) for at in range(400)]
    with shim(own_redis.url, tmp_path) as slow:
        async with relay_on(own_redis.url) as relay, httpx.AsyncClient(timeout=30) as http:
            job = await relay.enqueue()
            async with http.stream("GET", f"{slow.url}/api/v1/jobs/{job}/events") as response:
                events = sse(response)
                heard = [await anext(events)]
                slow.send(signal.SIGSTOP)
                await relay.run(await relay.claim(), *words)
                dropped = own_redis.say("INFO", "stats")
                slow.send(signal.SIGCONT)
                async with asyncio.timeout(30):
                    heard += [event async for event in events]
            logged = [json.loads(frame.body) for frame in await relay.frames(job)]

        assert b"client_output_buffer_limit_disconnections:1" in dropped
        assert logged == [event for event in heard if "id" in event]
        assert len(logged) == 403
