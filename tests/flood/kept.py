"""Floods of bytes that are kept: metadata, requests, answers, pictures, logs.

Those of pictures and logs are a worker's: its memory is told with the responses.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from secrets import token_hex

import httpx
from aiohttp import web
from support.processes import worker
from support.relay import Relay, chat, relay_on

from contract.events import Delta, Done
from contract.redis_keys import log as log_key
from flood.bodies import CHATS, JSON, conversation, sent
from flood.heads import told
from flood.scene import MIB, Case, Outcome, Scene, memory
from relay.claims import StartedJob
from workers.scripted.server import serve

_CHUNK = Delta(content="word " * 20_000)
_QUEUE = "kept.chat"
_PATIENCE_S = 60.0
_PNG = b"\x89PNG\r\n\x1a\n"
_CAP = 8 * MIB
_KEPT_BYTES = 64 * MIB
_WORKER_MIB = 420
"""By which a worker may grow for pictures: those of two tenants at most, and their requests."""


async def large_metadata(at: Scene) -> Outcome:
    """Twenty-five requests with metadata of 20 MB, on every surface that has it."""
    more = b',"metadata":{"k":"' + b"x" * at.many(20 * MIB) + b'"}'
    found: Counter[str] = Counter()
    paths = [path for path in CHATS if path not in {"/api/chat", "/v1/messages"}]
    for number in range(max(5, at.many(25))):
        path = paths[number % len(paths)]
        message = b'{"role":"user","content":"hello"}'
        status, size = await sent(at, path, conversation(path, [message], more))
        found[status if size < 5000 else f"{status} of {size} bytes"] += 1
    return Outcome(told(found), set(found) <= {"400", "422"})


async def large_list(at: Scene) -> Outcome:
    """A page of 25 jobs with requests and answers of 8 MB each, and what a shim reads for it."""
    text, chunks = "x" * at.many(8 * MIB), at.many(80)
    async with relay_on(at.redis.url) as relay:
        for _ in range(25):
            await relay.queue.enqueue(chat(text), queue=_QUEUE)
            await relay.run(await claimed(relay, _QUEUE), *[_CHUNK] * chunks)
    before = _sent_bytes(at)
    async with httpx.AsyncClient(base_url=at.url, timeout=60) as http:
        page = await http.get("/api/v1/jobs", params={"limit": 25})
    read = _sent_bytes(at) - before
    is_kept = page.status_code == 200 and len(page.content) < 50_000 and read < MIB
    return Outcome(f"{len(page.content)} bytes, of {read} that Redis sent", is_kept)


def _sent_bytes(at: Scene) -> int:
    stats = at.redis.say("INFO", "stats").decode()
    return int(stats.partition("total_net_output_bytes:")[2].split()[0])


async def whole_answers(at: Scene) -> Outcome:
    """An answer of 120 MB: read whole, and returned by a call that does not stream."""
    chunks = at.many(1200)
    text_bytes = chunks * len(_CHUNK.content or "")
    prompt = f"whole answer {token_hex(8)}"
    body = {"model": "m", "messages": [{"role": "user", "content": prompt}]}
    found: Counter[str] = Counter()
    async with relay_on(at.redis.url, log_cap_bytes=2**30) as relay:
        asking = asyncio.create_task(_read(at, "POST", "/v1/chat/completions", json=body))
        claim = await claimed(relay, "scripted.chat", prompt)
        attempt_log = relay.attempt_log(claim)
        for _ in range(chunks):
            attempt_log.append(_CHUNK)
            await attempt_log.wait_for_room()
        attempt_log.append(Done())
        await attempt_log.flush()
        path = f"/api/v1/jobs/{claim.record.id}"
        for status, size in (await asking, await _read(at, "GET", path)):
            is_whole = text_bytes < size < text_bytes + 10_000
            found[f"{status} {'whole' if is_whole else size}"] += 1
    return Outcome(told(found), set(found) == {"200 whole"})


async def _read(at: Scene, method: str, path: str, **given: object) -> tuple[int, int]:
    """Status and size of a response, which is read a piece at a time."""
    size = 0
    async with (
        httpx.AsyncClient(base_url=at.url, timeout=200) as http,
        http.stream(method, path, **given) as response,  # type: ignore[arg-type]
    ):
        async for piece in response.aiter_raw():
            size += len(piece)
    return response.status_code, size


async def many_large_requests(at: Scene) -> Outcome:
    """Requests of 24 MB to a queue that keeps 64 MiB; some are cancelled, and others come."""
    message = b'{"role":"user","content":"' + b"x" * max(8 * MIB, at.many(24 * MIB)) + b'"}'
    body = conversation(CHATS[0], [message])
    found: Counter[str] = Counter()
    async with httpx.AsyncClient(base_url=at.url, timeout=60, headers=JSON) as http:
        jobs = []
        for _ in range(2 * _KEPT_BYTES // len(body) + 2):
            answer = await http.post(CHATS[0], content=body)
            found[str(answer.status_code)] += 1
            if answer.status_code == 202:
                jobs.append(answer.json()["id"])
        (await http.delete(f"/api/v1/jobs/{jobs[0]}")).raise_for_status()
        again = await http.post(CHATS[0], content=body)
    is_kept = set(found) == {"202", "429"} and found["202"] * len(body) <= _KEPT_BYTES
    return Outcome(f"{told(found)}, then {again.status_code}", is_kept and again.status_code == 202)


async def pictures(at: Scene) -> Outcome:
    """Chats with 30 pictures of 19 MB, and with two of them, twelve at once."""
    size = at.many(19 * MIB)
    env = {}
    if at.scale != 1:
        env["FLEET_MAX_IMAGES_BYTES"] = str(3 * size)
        env["FLEET_IMAGES_AT_ONCE_BYTES"] = str(6 * size)
    async with relay_on(at.redis.url) as relay, _picture_server(size) as url, serve() as server:
        env |= {"FLEET_PRIVATE_IMAGES": "1", "LLM_BOX": server.url.replace("http", "ollama", 1)}
        with worker(at.redis.url, at.folder, "box", **env) as one:
            await one.ready(relay)
            before = memory(one.popen.pid, "VmRSS")
            asked = [[f"{url}/{n}" for n in range(30)], *[[f"{url}/1", f"{url}/2"]] * 12]
            answers = await asyncio.gather(*(_look(at, urls) for urls in asked))
            grown = (memory(one.popen.pid, "VmHWM") - before) / MIB
    found = Counter(answers[1:])
    said = f"{answers[0]}, {told(found)}; worker +{grown:.0f} MiB"
    return Outcome(said, answers[0] == "400" and set(found) == {"200"} and grown < _WORKER_MIB)


async def _look(at: Scene, urls: list[str]) -> str:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    body = {"model": "scripted-echo", "messages": [{"role": "user", "content": parts}]}
    async with httpx.AsyncClient(base_url=at.url, timeout=200) as http:
        return str((await http.post("/v1/chat/completions", json=body)).status_code)


@asynccontextmanager
async def _picture_server(size: int) -> AsyncGenerator[str]:
    async def picture(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"content-length": str(size)})
        await answer.prepare(request)
        with suppress(ConnectionError):  # a worker that has enough leaves
            await answer.write(_PNG)
            for sent_bytes in range(len(_PNG), size, MIB):
                await answer.write(bytes(min(MIB, size - sent_bytes)))
        return answer

    app = web.Application()
    app.router.add_get("/{number}", picture)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def large_chunks(at: Scene) -> Outcome:
    """An answer of chunks of 100 KB, three times as large as a log may be."""
    words = " ".join(["x" * 100_000] * (3 * _CAP // 100_000))
    message = {"role": "user", "content": words}
    body = {"model": "scripted-echo", "backend": "scripted", "messages": [message]}
    with worker(at.redis.url, at.folder, FLEET_LOG_CAP_BYTES=str(_CAP)) as one:
        async with relay_on(at.redis.url) as relay:
            await one.ready(relay)
            async with httpx.AsyncClient(base_url=at.url, timeout=100) as http:
                job = (await http.post("/api/v1/jobs/chat", json=body)).json()["id"]
                done = (await http.get(f"/api/v1/jobs/{job}", params={"wait_s": 60})).json()
            kept = await relay.connection.command("MEMORY", "USAGE", log_key(job), "SAMPLES", 0)
    error, text = done["result"]["error"] or {}, done["result"]["content"]
    said = f"{done['status']} {error.get('code')}, {len(text)} characters, {kept / MIB:.1f} MiB"
    is_kept = error.get("code") == "log_full" and 0.9 * _CAP < len(text) <= _CAP
    return Outcome(said, is_kept and kept < 1.2 * _CAP)


async def claimed(relay: Relay, queue: str, prompt: str = "") -> StartedJob:
    """The next job with this prompt: other cases may have left jobs in the queue."""
    async with asyncio.timeout(_PATIENCE_S):
        while True:
            claim = await relay.start_next(queue, "w1")
            if claim is None:
                await asyncio.sleep(0.02)
            elif prompt.encode() in claim.request:
                return claim


_KNOWS_AT_ONCE = {"FLEET_ROSTER_MAX_AGE_S": "0"}
CASES = [
    Case("25 requests with metadata of 20 MB", large_metadata, 4 * 20),
    Case("a list of 25 jobs of 16 MB", large_list, 8),
    Case("whole answers of 120 MB", whole_answers, 24),
    Case(
        "requests of 24 MB up to 64 MiB",
        many_large_requests,
        4 * 26,
        {"FLEET_QUEUE_LIMIT_BYTES": str(_KEPT_BYTES)},
    ),
    Case("30 pictures of 19 MB", pictures, 16, _KNOWS_AT_ONCE, has_workers=True),
    Case(
        "chunks of 100 KB beyond a log's cap",
        large_chunks,
        80,
        _KNOWS_AT_ONCE,
        has_workers=True,
    ),
]
