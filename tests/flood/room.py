"""Floods of what is kept: files and logs on a full disk, a full Redis, a queue of one tenant.

What is refused says so, those who did not fill it are served, and what is deleted makes room again.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping

import httpx
from support.small_disk import RedisOnASmallDisk

from flood.heads import told
from flood.scene import MIB, Case, Outcome, Scene

_CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
_ENQUEUES: Mapping[str, object] = {
    "/api/v1/jobs/chat": _CHAT,
    "/v1/chat/completions": _CHAT,
    "/v1/messages": {**_CHAT, "max_tokens": 9},
    "/api/chat": _CHAT,
}
_REFUSED = {"503", "529"}
"""A 529 is what Anthropic says where others say 503."""
_PATIENCE_S = 30.0


def _client(at: Scene, key: str = "") -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return httpx.AsyncClient(base_url=at.url, timeout=60, headers=headers)


async def _upload(http: httpx.AsyncClient, size_bytes: int) -> httpx.Response:
    form = {"purpose": "batch"}
    return await http.post("/v1/files", data=form, files={"file": ("f", b"x" * size_bytes)})


async def _enqueue(http: httpx.AsyncClient, path: str = "/api/v1/jobs/chat") -> str:
    return str((await http.post(path, json=_ENQUEUES[path])).status_code)


async def _until_taken(http: httpx.AsyncClient) -> str:
    """The status of a job once it is not refused as unavailable, or the last one."""
    status = ""
    try:
        async with asyncio.timeout(_PATIENCE_S):
            while (status := await _enqueue(http)) == "503":
                await asyncio.sleep(0.1)
    except TimeoutError:
        pass
    return status


async def _refused_everywhere(http: httpx.AsyncClient) -> Counter[str]:
    """Every surface, and /readyz, while nothing new is taken."""
    found = Counter([await _enqueue(http, path) for path in _ENQUEUES])
    found[str((await http.get("/readyz")).status_code)] += 1
    return found


async def uploads_fill_the_disk(at: Scene) -> Outcome:
    """Uploads stop before the reserve; jobs are taken meanwhile, and deletions make room."""
    async with _client(at) as http:
        answers = [await _upload(http, 4 * MIB)]
        while answers[-1].status_code == 200 and len(answers) < 50:
            answers.append(await _upload(http, 4 * MIB))
        job, ready = await _enqueue(http), (await http.get("/readyz")).status_code
        deleted = [
            (await http.delete(f"/v1/files/{each.json()['id']}")).status_code
            for each in answers[:-1]
        ]
        for _ in range(100):  # the sweep deletes the bytes
            if (again := await _upload(http, 4 * MIB)).status_code == 200:
                break
            await asyncio.sleep(0.5)
    found = Counter(str(each.status_code) for each in answers)
    is_kept = answers[-1].status_code == 503 and "retry-after" in answers[-1].headers
    is_kept = is_kept and job == "202" and ready == 200 and set(deleted) == {200}
    return Outcome(told(found), is_kept and again.status_code == 200)


async def logs_on_a_full_disk(at: Scene) -> Outcome:
    """The disk on which Redis appends is full: all is read, nothing new is taken."""
    assert isinstance(at.redis, RedisOnASmallDisk)
    async with _client(at) as http:
        job = (await http.post("/api/v1/jobs/chat", json=_CHAT)).json()["id"]
        at.redis.fill()
        async with asyncio.timeout(_PATIENCE_S):
            while await _enqueue(http) != "503":
                await asyncio.sleep(0.02)
        found = await _refused_everywhere(http)
        reads = {(await http.get(f"/api/v1/jobs/{job}")).status_code}
        reads.add((await http.get("/api/v1/jobs")).status_code)
        at.redis.free()
        again = await _until_taken(http)
        cancelled = (await http.delete(f"/api/v1/jobs/{job}")).status_code
    is_kept = set(found) <= _REFUSED and reads == {200} and again == "202" and cancelled == 200
    return Outcome(told(found), is_kept)


async def redis_at_maxmemory(at: Scene) -> Outcome:
    """Redis has as much as it may: nothing new is taken, what is there can be ended."""
    async with _client(at) as http:
        job = (await http.post("/api/v1/jobs/chat", json=_CHAT)).json()["id"]
        at.redis.say("CONFIG", "SET", "maxmemory", "1")
        found = await _refused_everywhere(http)
        cancelled = (await http.delete(f"/api/v1/jobs/{job}")).status_code
        ended = (await http.get(f"/api/v1/jobs/{job}")).json()["status"]
        at.redis.say("CONFIG", "SET", "maxmemory", "0")
        again = await _until_taken(http)
    is_kept = set(found) <= _REFUSED and (cancelled, ended, again) == (200, "cancelled", "202")
    return Outcome(told(found), is_kept)


async def a_latecomer(at: Scene) -> Outcome:
    """Tenants flood a queue of fifty jobs one after the other; each next one gets in."""
    found: Counter[str] = Counter()
    firsts = []
    async with _client(at) as http:
        admin = await http.post("/api/v1/keys", json={"tenant": "admin", "admin": True})
        http.headers["authorization"] = f"Bearer {admin.json()['key']}"
        for number in range(12):
            made = await http.post("/api/v1/keys", json={"tenant": f"t{number}"})
            async with _client(at, made.json()["key"]) as tenant:
                firsts.append(await _enqueue(tenant))
                statuses = [await _enqueue(tenant) for _ in range(at.many(60))]
                found.update([firsts[-1], *statuses])
    return Outcome(told(found), set(firsts) == {"202"} and set(found) == {"202", "429"})


CASES = [
    Case("uploads onto a full disk", uploads_fill_the_disk, 60, disk_mib=64),
    Case("logs on a full disk", logs_on_a_full_disk, 24, disk_mib=16),
    Case("Redis at maxmemory", redis_at_maxmemory, 24),
    Case("a latecomer", a_latecomer, 24, {"FLEET_QUEUE_LIMIT": "50"}),
]
