"""Floods of followers: clients that read nothing, and very many that do."""

import asyncio
import json
import socket
from collections import Counter
from contextlib import AsyncExitStack

import httpx
from support.relay import Relay, chat, relay_on
from websockets.asyncio.client import connect

from contract.events import Delta, Done, Event, Progress
from flood.heads import all_are, told
from flood.scene import Case, Outcome, Scene
from relay.claims import StartedJob
from relay.leases import Holder

_CHUNK = Delta(content="x" * 65_000)
_UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
_NDJSON = "Accept: application/x-ndjson\r\n"
_QUEUE = "flood.chat"
_PATIENCE_S = 30.0
_IN_AN_ENTRY = 15
_UNREAD_CHUNKS = 120
"""More than the buffers of the operating system take."""
_UNREAD_SMALL = 200_000


async def _answer(
    relay: Relay, claim: StartedJob, chunks: int, *, at_once: int = 1, chunk: Event = _CHUNK
) -> None:
    """Answer a job with so many chunks, so many of which are one entry of its log."""
    attempt_log = relay.attempt_log(claim)
    for number, event in enumerate([*[chunk] * chunks, Done()], 1):
        attempt_log.append(event)
        if number % at_once == 0:
            await attempt_log.flush()
    await attempt_log.flush()
    held = Holder(claim.attempt, "w1")
    await relay.leases.release(claim.record.queue, claim.record.id, held)


async def _unread(at: Scene, request: str) -> socket.socket:
    """A connection that has sent a request and reads nothing of its response."""
    line = socket.socket()
    line.settimeout(0)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(line, at.address)
    await loop.sock_sendall(line, request.encode())
    return line


async def _cut(at: Scene) -> int:
    """How many clients that read nothing were disconnected."""
    async with httpx.AsyncClient(timeout=60) as http:
        text = (await http.get(f"{at.url}/metrics")).text
    found = [line for line in text.splitlines() if 'reason="reads_nothing"' in line]
    return int(float(found[0].rsplit(" ", 1)[1])) if found else 0


async def _until_cut(at: Scene, count: int, before: int) -> Outcome:
    """Wait until so many were disconnected."""
    cut = 0
    try:
        async with asyncio.timeout(_PATIENCE_S):
            while (cut := await _cut(at) - before) < count:
                await asyncio.sleep(0.1)
    except TimeoutError:
        pass
    return Outcome(f"{cut} of {count} cut", cut >= count)


async def _following(
    at: Scene, headers: str, path: str = "/events", *, at_once: int = 1, count: int = 200
) -> Outcome:
    """So many followers of an answer of 50 MB that read nothing of it."""
    before, chunks = await _cut(at), max(_UNREAD_CHUNKS, at.many(800))
    async with relay_on(at.redis.url) as relay:
        job = await _enqueued(relay)
        await _answer(relay, await until_claimed(relay, _QUEUE), chunks, at_once=at_once)
    return await _cut_followers(at, _head(job, headers, path), at.many(count), before)


def _head(job: str, headers: str = "", path: str = "/events") -> str:
    return f"GET /api/v1/jobs/{job}{path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"


async def _cut_followers(at: Scene, head: str, count: int, before: int) -> Outcome:
    """Follow and read nothing, until all are cut."""
    lines = [await _unread(at, head) for _ in range(count)]
    outcome = await _until_cut(at, len(lines), before)
    for line in lines:
        line.close()
    return outcome


async def unread_events(at: Scene) -> Outcome:
    return await _following(at, "")


async def unread_lines(at: Scene) -> Outcome:
    return await _following(at, _NDJSON)


async def unread_entries(at: Scene) -> Outcome:
    """Entries of a megabyte, as a worker writes them that is slower than its backend."""
    return await _following(at, "", at_once=_IN_AN_ENTRY)


async def unread_messages(at: Scene) -> Outcome:
    """The same while they are written: a message of a megabyte wakes all followers together."""
    before, chunks = await _cut(at), max(_UNREAD_CHUNKS, at.many(800))
    async with relay_on(at.redis.url) as relay:
        job = await _enqueued(relay)
        lines = [await _unread(at, _head(job)) for _ in range(at.many(200))]
        await asyncio.sleep(2 * at.scale)
        await _answer(relay, await until_claimed(relay, _QUEUE), chunks, at_once=_IN_AN_ENTRY)
    outcome = await _until_cut(at, len(lines), before)
    for line in lines:
        line.close()
    return outcome


async def unread_small(at: Scene) -> Outcome:
    """Entries of ten thousand small events, each of which is a message of a WebSocket."""
    before = await _cut(at)
    async with relay_on(at.redis.url) as relay:
        job = await _enqueued(relay)
        claim = await until_claimed(relay, _QUEUE)
        await _answer(relay, claim, _UNREAD_SMALL, at_once=10_000, chunk=Progress(status="on"))
    return await _cut_followers(at, _head(job, _UPGRADE), max(4, at.many(20)), before)


async def unread_whole(at: Scene) -> Outcome:
    return await _following(at, "", "", at_once=_IN_AN_ENTRY, count=20)


async def unread_sockets(at: Scene) -> Outcome:
    return await _following(at, _UPGRADE)


async def unread_answers(at: Scene) -> Outcome:
    """Streams of a drop-in surface, whose jobs answer while their clients read nothing."""
    before = await _cut(at)
    body = json.dumps(
        {"model": "m", "stream": True, "messages": [{"role": "user", "content": "hello"}]}
    )
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json"
        f"\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    )
    lines = [await _unread(at, head) for _ in range(max(4, at.many(40)))]
    async with relay_on(at.redis.url) as relay, asyncio.TaskGroup() as group:
        claims = [await until_claimed(relay) for _ in lines]
        for claim in claims:
            group.create_task(_answer(relay, claim, _UNREAD_CHUNKS))
    outcome = await _until_cut(at, len(lines), before)
    for line in lines:
        line.close()
    return outcome


async def _enqueued(relay: Relay) -> str:
    """A job in a queue of its own: other cases leave theirs behind."""
    record, _ = await relay.queue.enqueue(chat(), queue=_QUEUE)
    return record.id


async def until_claimed(relay: Relay, queue: str = "scripted.chat") -> StartedJob:
    """The next job of a queue, as a worker gets it."""
    async with asyncio.timeout(_PATIENCE_S):
        while (claim := await relay.start_next(queue, "w1")) is None:
            await asyncio.sleep(0.02)
    return claim


async def idle_sockets(at: Scene) -> Outcome:
    """WebSockets of a job that waits."""
    address = at.url.replace("http", "ws", 1)
    async with relay_on(at.redis.url) as relay, AsyncExitStack() as stack:
        job = await _enqueued(relay)
        for _ in range(at.many(300)):
            await stack.enter_async_context(
                connect(f"{address}/api/v1/jobs/{job}/events", proxy=None)
            )
        await asyncio.sleep(1)
        await relay.run(await until_claimed(relay, _QUEUE))
    return Outcome(f"{at.many(300)} open", is_kept=True)


async def many_followers(at: Scene) -> Outcome:
    """A thousand followers of one live answer, each of which gets all of it."""
    count = at.many(1000)
    limits = httpx.Limits(max_connections=None)
    async with relay_on(at.redis.url) as relay:
        job = await _enqueued(relay)
        async with httpx.AsyncClient(base_url=at.url, timeout=60, limits=limits) as http:
            following = [
                asyncio.create_task(http.get(f"/api/v1/jobs/{job}/events")) for _ in range(count)
            ]
            await asyncio.sleep(2 * at.scale)
            await relay.run(await until_claimed(relay, _QUEUE), *[Delta(content="word ")] * 20)
            answers = await asyncio.gather(*following)
    whole = Counter(each.text.count("event: delta") for each in answers)
    return Outcome(told(Counter({f"{n} deltas": c for n, c in whole.items()})), set(whole) == {20})


async def silent_callers(at: Scene) -> Outcome:
    """Clients that connect again and again, and leave."""
    found: Counter[str] = Counter()
    for _ in range(at.many(2000)):
        _, writer = await asyncio.open_connection(*at.address)
        writer.close()
    async with httpx.AsyncClient(base_url=at.url) as http:
        found[str((await http.get("/v1/models")).status_code)] += 1
    return all_are(found, {"200"})


_SHORT = {"FLEET_WRITE_TIMEOUT_S": "3"}
CASES = [
    Case("200 followers that read nothing", unread_events, 120, _SHORT),
    Case("200 followers of large entries", unread_entries, 120, _SHORT),
    Case("200 followers of large messages", unread_messages, 120, _SHORT),
    Case("20 WebSockets of small events", unread_small, 40, _SHORT),
    Case("20 readers of a whole answer", unread_whole, 40, _SHORT),
    Case("200 readers of lines that read nothing", unread_lines, 100, _SHORT),
    Case("200 WebSockets that read nothing", unread_sockets, 100, _SHORT),
    Case("40 streams that nobody reads", unread_answers, 40, _SHORT),
    Case("300 idle WebSockets", idle_sockets, 30),
    Case("1,000 followers", many_followers, 90),
    Case("2,000 clients that leave at once", silent_callers, 8),
]
