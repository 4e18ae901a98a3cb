"""One tenant fills Redis with jobs that have ended, and no other notices, through real processes.

Subjects: relay/room, api_shim/queue_upkeep.py, workers/celery_pool/redis_transport.py.
"""

import asyncio
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
from support.keys import keyed
from support.processes import until_logged, worker
from support.redis_server import RedisServer
from support.relay import relay_on

from contract.chat import ChatRequest, Message

MIB = 2**20
ROOM_BYTES = 32 * MIB
TEXT_BYTES = 24 * 1024
SETTINGS = {
    "FLEET_LEASE_S": "1", "FLEET_RENEW_S": "0.3", "FLEET_REAP_S": "0.3",
    "FLEET_MEMORY_KEEPS_S": "1",
}  # fmt: skip


def chat(text: str = "tell") -> dict[str, Any]:
    model = "scripted-story:chunks=3"
    return {
        "backend": "scripted", "model": model, "messages": [{"role": "user", "content": text}],
    }  # fmt: skip


async def until_done(http: httpx.AsyncClient, job: str) -> str:
    found = await http.get(f"/api/v1/jobs/{job}", params={"wait_s": 30})
    return str(found.json()["status"])


async def others(http: httpx.AsyncClient, flooding: asyncio.Task[None]) -> Counter[int]:
    """What another tenant is answered while one floods."""
    answers: Counter[int] = Counter()
    while not flooding.done():
        answers[(await http.post("/api/v1/jobs/chat", json=chat())).status_code] += 1
        await asyncio.sleep(0.2)
    return answers


async def test_who_fills_redis_gives_up_its_oldest_and_others_keep_all(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        shim = stack.enter_context(keyed(own_redis.url, reap_s=0.3))
        first, second = (
            stack.enter_context(worker(own_redis.url, tmp_path, **SETTINGS)) for _ in range(2)
        )
        async with relay_on(own_redis.url) as relay, shim.caller("a") as a, shim.caller("b") as b:
            await first.ready(relay)
            await second.ready(relay)
            mine = (await b.post("/api/v1/jobs/chat", json=chat())).json()["id"]
            assert await until_done(b, mine) == "done"
            used, _ = await relay.connection.memory()
            own_redis.say("CONFIG", "SET", "maxmemory", str(used + ROOM_BYTES))
            flood = Flood(a)
            flooding = asyncio.create_task(flood.run(1.6 * ROOM_BYTES))
            watching = asyncio.create_task(others(b, flooding))
            await flood.until(ROOM_BYTES)
            first.end()  # the maintainer, perhaps in the middle of a page
            await flooding
            theirs = await b.post("/api/v1/jobs/chat", json=chat())
            assert await until_done(b, theirs.json()["id"]) == "done"
            oldest, newest = await gone(a, flood.jobs[:50]), await gone(a, flood.jobs[-50:])
            kept = await b.get(f"/api/v1/jobs/{mine}")

        assert set(flood.answers) <= {202, 429}, flood.answers
        assert set(await watching) == {202}
        assert newest == 0 < oldest
        assert kept.status_code == 200
        assert kept.json()["result"]["content"]


async def gone(http: httpx.AsyncClient, jobs: list[str]) -> int:
    """How many of these jobs were removed."""
    found = [await http.get(f"/api/v1/jobs/{job}") for job in jobs]
    return [each.json().get("code") for each in found].count("job_not_found")


class Flood:
    """Jobs with large requests, four at a time; fewer a second once there is something to remove.

    The room is small here, so that the test is short: what is free above the mark is to last for
    some looks of the maintainer, and for the lease of one that was killed.
    """

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.jobs: list[str] = []
        self.answers: Counter[int] = Counter()
        self._http = http
        self._body = chat("x" * TEXT_BYTES)

    async def run(self, size_bytes: float) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(self._send(size_bytes))

    async def until(self, size_bytes: int) -> None:
        while len(self.jobs) * TEXT_BYTES < size_bytes:
            await asyncio.sleep(0.01)

    async def _send(self, size_bytes: float) -> None:
        while len(self.jobs) * TEXT_BYTES < size_bytes:
            answer = await self._http.post("/api/v1/jobs/chat", json=self._body)
            self.answers[answer.status_code] += 1
            if answer.status_code == 202:
                self.jobs.append(answer.json()["id"])
            if answer.status_code != 202 or len(self.jobs) * TEXT_BYTES > ROOM_BYTES / 2:
                await asyncio.sleep(0.03)


async def test_a_burst_of_long_answers_leaves_room_for_others(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    # Small requests, whose answers take three times what there is room for, at 50 MB a second.
    model = f"scripted-story:chunks=4,first=0.2,size={400 * 1024}"
    env = {**SETTINGS, "FLEET_MEMORY_KEEPS_S": "6", "LLM_SCRIPTED": "scripted://?slots=32"}
    with ExitStack() as stack:
        shim = stack.enter_context(keyed(own_redis.url, reap_s=0.3))
        async with relay_on(own_redis.url) as relay, shim.caller("a") as a, shim.caller("b") as b:
            one = stack.enter_context(worker(own_redis.url, tmp_path, **env))
            await one.ready(relay)
            before, _ = await relay.connection.memory()
            own_redis.say("CONFIG", "SET", "maxmemory", str(before + ROOM_BYTES))
            await asyncio.sleep(1)  # the worker looks how much there is
            body = {**chat(), "model": model}
            jobs = [(await a.post("/api/v1/jobs/chat", json=body)).json()["id"] for _ in range(240)]
            waiting = asyncio.create_task(until_logged(one, "its waiting ones wait", timeout_s=60))
            theirs = await others(b, waiting)
            held, _ = await relay.connection.memory()
            waits = (await a.get(f"/api/v1/jobs/{jobs[-1]}")).json()
            mine = (await b.post("/api/v1/jobs/chat", json=chat())).json()["id"]
            assert await until_done(b, mine) == "done"
            for job in jobs[:-1]:
                await a.delete(f"/api/v1/jobs/{job}")
            while (end := await until_done(a, jobs[-1])) in ("queued", "running"):
                pass

    assert waits["status"] == "queued"
    assert held < before + ROOM_BYTES
    assert theirs.keys() == {202}, theirs
    assert end == "done"


async def test_a_worker_that_starts_in_a_full_redis_runs_what_waits(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    # Who waits for room before it connects lets no job end, and there will be none.
    async with relay_on(own_redis.url) as relay:
        message = Message(role="user", content="tell")
        request = ChatRequest(model="scripted-story:chunks=3", messages=(message,))
        waiting = [(await relay.queue.enqueue(request, queue="scripted.chat"))[0] for _ in range(3)]
        own_redis.say("CONFIG", "SET", "maxmemory", "1mb")
        with worker(own_redis.url, tmp_path, **SETTINGS) as one:
            async with asyncio.timeout(60):
                ends = [(await relay.frames(job.id))[-1].type for job in waiting]
            log = one.text()

    assert ends == ["done"] * 3
    assert "Traceback" not in log, log
