"""The disk of Redis is full: nothing new is taken, all can be read, and it goes on by itself.

Subjects: relay/connection.py, api_shim/native/health.py, workers/celery_pool/redis_transport.py,
workers/maintenance.py.
"""

import asyncio
import signal
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import httpx
import pytest
from support.debian_programs import program
from support.processes import WorkerProcess, worker
from support.relay import Relay, relay_on
from support.shim import problem, serving
from support.small_disk import RedisOnASmallDisk, needs_mount

from contract.chat import ChatRequest, Message
from contract.errors import RelayFull
from contract.result import fold

pytestmark = needs_mount
STORY = "scripted-story:chunks=60,rate=20"
MESSAGES = [{"role": "user", "content": "tell"}]
ENQUEUES = {
    "/api/v1/jobs/chat": {"backend": "scripted", "model": STORY, "messages": MESSAGES},
    "/v1/chat/completions": {"model": STORY, "messages": MESSAGES},
    "/v1/responses": {"model": STORY, "input": "tell"},
    "/v1/messages": {"model": STORY, "messages": MESSAGES, "max_tokens": 9},
    "/api/chat": {"model": STORY, "messages": MESSAGES},
}


@pytest.fixture(params=["usual", "redis-server"])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisOnASmallDisk]:
    """On the server that all tests have, Valkey as a rule, and on Redis."""
    named = None if request.param == "usual" else program(request.param)
    redis = RedisOnASmallDisk(tmp_path, program=named)
    yield redis
    redis.stop()


@asynccontextmanager
async def running(
    redis: RedisOnASmallDisk, folder: Path
) -> AsyncGenerator[tuple[Relay, WorkerProcess, httpx.AsyncClient]]:
    with worker(redis.url, folder) as one, serving(redis.url, data_dir=folder / "files") as shim:
        async with relay_on(redis.url) as relay, httpx.AsyncClient(base_url=shim) as http:
            http.timeout = httpx.Timeout(20)
            await one.ready(relay)
            yield relay, one, http


async def until_full(redis: RedisOnASmallDisk, relay: Relay) -> None:
    """Fill the disk until Redis says so: it notices at its next write."""
    redis.fill()
    async with asyncio.timeout(20):
        while True:
            try:
                await relay.connection.command("SET", "filler", "x" * 10_000, "EX", 60)
            except RelayFull:
                return
            await asyncio.sleep(0.05)


async def until_taken(http: httpx.AsyncClient) -> httpx.Response:
    """Enqueue until it is accepted."""
    path = "/api/v1/jobs/chat"
    async with asyncio.timeout(20):
        while (answer := await http.post(path, json=ENQUEUES[path])).status_code == 503:
            await asyncio.sleep(0.1)
    return answer


async def story(relay: Relay) -> str:
    request = ChatRequest(model=STORY, messages=(Message(role="user", content="tell"),))
    record, _ = await relay.queue.enqueue(request, queue="scripted.chat")
    return record.id


async def test_a_full_disk_refuses_what_is_new_and_the_rest_goes_on_by_itself(
    small_disk: RedisOnASmallDisk, tmp_path: Path
) -> None:
    async with running(small_disk, tmp_path) as (relay, one, http):
        job = await story(relay)
        async with asyncio.timeout(20), aclosing(relay.log.follow(job)) as pages:
            async for frames in pages:
                if any(frame.type == "delta" for frame in frames):
                    break
        await until_full(small_disk, relay)
        headers = {"x-fleet-backend": "scripted"}
        refused = {
            path: await http.post(path, json=body, headers=headers)
            for path, body in ENQUEUES.items()
        }
        ready = await http.get("/readyz")
        read = [
            await http.get(path)
            for path in (f"/api/v1/jobs/{job}", "/api/v1/jobs", "/api/v1/queues", "/metrics")
        ]
        cancelled = await http.delete(f"/api/v1/jobs/{job}")
        await asyncio.sleep(1)
        small_disk.free()
        later = await until_taken(http)
        async with asyncio.timeout(40):
            frames = await relay.frames(job)
            last = (await relay.frames(later.json()["id"]))[-1]

        assert {path: each.status_code for path, each in refused.items()} == {
            **dict.fromkeys(ENQUEUES, 503), "/v1/messages": 529,
        }  # fmt: skip
        assert all(int(each.headers["retry-after"]) >= 1 for each in refused.values())
        assert "No space left" in problem(ready, 503, "relay_unavailable")["checks"]["redis"]
        assert [each.status_code for each in read] == [200] * 4
        problem(cancelled, 503, "relay_unavailable")
        assert [frames[-1].type, last.type] == ["done", "done"]
        assert fold(frame.event for frame in frames).content.count(" ") > 50
        assert {frame.id.attempt for frame in frames if frame.id} == {1}
        assert one.popen.poll() is None


async def test_a_worker_stops_soon_although_its_job_cannot_end(
    small_disk: RedisOnASmallDisk, tmp_path: Path
) -> None:
    with worker(small_disk.url, tmp_path, FLEET_DRAIN_S="60") as one:
        async with relay_on(small_disk.url) as relay:
            await one.ready(relay)
            job = await story(relay)
            async with asyncio.timeout(20), aclosing(relay.log.follow(job)) as pages:
                async for frames in pages:
                    if any(frame.type == "delta" for frame in frames):
                        break
            await until_full(small_disk, relay)
            one.send(signal.SIGTERM)
            await asyncio.to_thread(one.wait, 25)

    assert "the disk of Redis is full" in one.text()
