"""A prompt that crashes its server is sent once an attempt, through a real worker."""

import asyncio
from pathlib import Path

import pytest
from support.answers import answering, lines, words
from support.processes import worker
from support.relay import Relay, relay_on

from contract.chat import ChatRequest, Message
from contract.jobs import JobRecord

SHAPES = {"vllm": ("/v1", words), "ollama": ("", lines)}
RARELY = {"FLEET_REAP_S": "60"}


async def ended(relay: Relay, model: str, **fields: object) -> JobRecord:
    request = ChatRequest(model=model, messages=(Message(role="user", content="hi"),), **fields)
    record, _ = await relay.queue.enqueue(request, queue="box.chat")
    async with asyncio.timeout(20):
        await relay.frames(record.id)
    return await relay.records.get(record.id)


@pytest.mark.parametrize("type", SHAPES)
async def test_a_prompt_that_crashes_its_server_is_sent_once_an_attempt(
    redis_url: str, tmp_path: Path, type: str
) -> None:
    path, shape = SHAPES[type]
    async with (
        answering(good=lambda _: shape("hi"), poison=lambda _: None) as server,
        relay_on(redis_url) as relay,
    ):
        dsn = f"{type}://127.0.0.1:{server.port}{path}?slots=1"
        with worker(redis_url, tmp_path, "box", LLM_BOX=dsn, **RARELY) as one:
            await one.ready(relay)
            assert (await ended(relay, "good")).status == "done"
            poison = await ended(relay, "poison", max_attempts=2)

            assert (poison.status, poison.tries, server.asked["poison"]) == ("failed", 2, 2)
            assert await relay.connection.command("ZSCORE", "fleet:dead", poison.id)


async def test_a_stale_connection_costs_one_attempt_and_no_wait(
    redis_url: str, tmp_path: Path
) -> None:
    drops = [True]

    def stale_once(_: object) -> object:
        return None if drops and drops.pop() else words("hi")

    async with answering(good=lambda _: words("hi"), m=stale_once) as server:
        dsn = f"vllm://127.0.0.1:{server.port}/v1?slots=1"
        with worker(redis_url, tmp_path, "box", LLM_BOX=dsn, **RARELY) as one:
            async with relay_on(redis_url) as relay:
                await one.ready(relay)
                await ended(relay, "good")
                record = await ended(relay, "m")
                frames = await relay.frames(record.id)

    reasons = [frame.event.reason for frame in frames if frame.type == "queued"]
    assert (record.status, record.tries, server.asked["m"]) == ("done", 2, 2)
    assert "retry at once" in str(reasons[1])
