"""An answer that changes hands in the middle: what a reader sees of the seam, over HTTP."""

import asyncio
import re
import signal
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import httpx
import pytest
from support.processes import worker
from support.relay import Relay, relay_on
from support.shim import Stage, serving, stage

from contract import redis_keys
from contract.chat import ChatRequest, JsonFormat, Message
from contract.events import Frame
from contract.result import Result, fold

LEASE = {"FLEET_LEASE_S": "1", "FLEET_RENEW_S": "0.3", "FLEET_REAP_S": "0.3"}
LONG = "scripted-story:chunks=320,rate=150"
FORGET = """
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', ARGV[1])
for _, entry in ipairs(last) do redis.call('XDEL', KEYS[1], entry[1]) end
"""
"""A server that comes back without the newest entries of a log."""


def ask(model: str, **fields: object) -> ChatRequest:
    return ChatRequest(model=model, messages=(Message(role="user", content="tell"),), **fields)


async def enqueue(relay: Relay, request: ChatRequest) -> str:
    return (await relay.queue.enqueue(request, queue="scripted.chat"))[0].id


async def heard(relay: Relay, job: str) -> list[Frame]:
    async with asyncio.timeout(40):
        return await relay.frames(job)


async def until_delta(relay: Relay, job: str, count: int) -> None:
    seen = 0
    async with asyncio.timeout(20), aclosing(relay.log.follow(job)) as pages:
        async for frames in pages:
            seen += sum(frame.type == "delta" for frame in frames)
            if seen >= count:
                return


def answer(frames: list[Frame]) -> Result:
    return fold(frame.event for frame in frames)


def types(frames: list[Frame]) -> list[str]:
    return [frame.type for frame in frames]


@asynccontextmanager
async def handed_over(
    redis_url: str, folder: Path, request: ChatRequest, after: int
) -> AsyncGenerator[tuple[Stage, str]]:
    """A job whose first worker is killed after so many fragments, and whose second has it."""
    with serving(redis_url) as shim, worker(redis_url, folder, **LEASE) as first:
        async with stage(shim, redis_url) as at:
            await first.ready(at.relay)
            job = await enqueue(at.relay, request)
            await until_delta(at.relay, job, after)
            with worker(redis_url, folder, **LEASE):
                first.send(signal.SIGKILL)
                yield at, job


async def uninterrupted(relay: Relay, request: ChatRequest) -> Result:
    """The same words, at once."""
    hasty = request.model_copy(update={"model": re.sub(r",rate=\d+", "", request.model)})
    return answer(await heard(relay, await enqueue(relay, hasty)))


async def replay(http: httpx.AsyncClient, job: str, **headers: str) -> bytes:
    response = await http.get(f"/api/v1/jobs/{job}/events", headers=headers)
    return response.content


async def test_resuming_at_every_event_of_a_continued_answer_equals_the_replay_byte_for_byte(
    redis_url: str, tmp_path: Path
) -> None:
    async with handed_over(redis_url, tmp_path, ask(LONG), 120) as (at, job):
        frames = await heard(at.relay, job)
        whole = await replay(at.http, job)
        head, *blocks = whole.split(b"\n\n")[:-1]

        assert len(frames) == len(blocks) >= 320
        assert types(frames).count("resumed") == 1
        assert "reset" not in types(frames)
        for number, block in enumerate(blocks[:-1], start=1):
            cursor = block.partition(b"\n")[0].removeprefix(b"id: ").decode()
            rest = await replay(at.http, job, **{"Last-Event-ID": cursor})

            assert rest == b"\n\n".join([head, *blocks[number:], b""])


async def test_a_subscriber_during_a_hand_over_receives_what_a_replay_has(
    redis_url: str, tmp_path: Path
) -> None:
    async with handed_over(redis_url, tmp_path, ask(LONG), 60) as (at, job):
        live = await at.heard(job)

        assert live == await at.heard(job)
        assert [event["type"] for event in live].count("resumed") == 1


@pytest.mark.parametrize("limit", [None, 200])
async def test_a_continued_answer_is_the_uninterrupted_one_and_costs_the_same(
    limit: int | None, redis_url: str, tmp_path: Path
) -> None:
    request = ask(LONG, max_tokens=limit)
    async with handed_over(redis_url, tmp_path, request, 50) as (at, job):
        continued = answer(await heard(at.relay, job))
        whole = await uninterrupted(at.relay, request)

        assert continued.content == whole.content
        assert continued.usage == whole.usage
        assert continued.finish_reason == whole.finish_reason


async def test_a_structured_answer_starts_over(redis_url: str, tmp_path: Path) -> None:
    # ai-dynamo/dynamo #7930: continuing a guided answer corrupts it.
    request = ask("scripted-story:chunks=80,rate=50", response_format=JsonFormat())
    async with handed_over(redis_url, tmp_path, request, 20) as (at, job):
        frames = await heard(at.relay, job)

        assert types(frames).count("reset") == 1
        assert "resumed" not in types(frames)
        assert answer(frames).content == (await uninterrupted(at.relay, request)).content


async def test_a_stream_that_the_backend_cuts_continues_in_the_next_attempt(
    redis_url: str, tmp_path: Path
) -> None:
    # bifrost #2917: no retry once a stream has opened, because nobody counts what was sent.
    cut = ask("scripted-story:chunks=60,fail=cut:20,times=2")
    with worker(redis_url, tmp_path) as one:
        async with relay_on(redis_url) as relay:
            await one.ready(relay)
            frames = await heard(relay, await enqueue(relay, cut))
            whole = await uninterrupted(relay, ask("scripted-story:chunks=60"))

            assert types(frames).count("resumed") == 2
            assert answer(frames).content == whole.content
            assert answer(frames).usage == whole.usage


async def _forget(relay: Relay, job: str, entries: int) -> None:
    await relay.connection.command("EVAL", FORGET, 1, redis_keys.log(job), entries)


async def test_a_job_whose_log_lost_its_end_is_handed_over_at_once(
    redis_url: str, tmp_path: Path
) -> None:
    request = ask("scripted-story:chunks=150,rate=60", max_attempts=1)
    with worker(redis_url, tmp_path) as one:
        async with relay_on(redis_url) as relay:
            await one.ready(relay)
            job = await enqueue(relay, request)
            await until_delta(relay, job, 30)
            await _forget(relay, job, 10)
            frames = await heard(relay, job)
            stored = [f async for page in relay.log.read(job) for f in page]
            queued = [f.event.reason for f in stored if f.type == "queued"]

            assert queued[1:] == ["Redis lost a part of its log"]
            assert answer(stored).content == (await uninterrupted(relay, request)).content
            assert frames[-1].type == "done"
            assert (await relay.records.get(job)).tries == 1
