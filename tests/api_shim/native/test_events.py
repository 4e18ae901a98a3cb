"""Following: late, many, slow and returning readers, over SSE and NDJSON, from any shim."""

import asyncio
import json
from contextlib import suppress
from typing import Any

import httpx
import pytest
from support.redis_server import RedisServer
from support.shim import Stage, eventually, followers, lines, problem, serving, sse, stage

from contract.events import Delta, Done

TEXT = ("Grüße ", "世界", " 🦜", "\n\n", "data: x\r\n", "\u2028", '"}')


async def finished(at: Stage, *texts: str) -> str:
    """A job that has said these and ended."""
    job = await at.relay.enqueue()
    await at.relay.run(await at.relay.claim(), *(Delta(content=text) for text in texts))
    return job


async def test_a_late_subscriber_receives_everything_in_any_language(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        job = await finished(at, *TEXT)
        heard = await at.heard(job)

        assert [e["type"] for e in heard] == ["queued", "started", *["delta"] * len(TEXT), "done"]
        assert "".join(e.get("content", "") for e in heard) == "".join(TEXT)


async def test_a_stream_has_the_headers_that_proxies_and_browsers_need(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        job = await finished(at)
        answer = await at.http.get(f"/api/v1/jobs/{job}/events")

        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-accel-buffering"] == "no"
        assert answer.headers["x-fleet-job"] == job
        assert answer.text.startswith("retry: 1000\n\nid: 1-0\nevent: queued\ndata: {")


async def test_ndjson_has_the_same_events_one_a_line(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        job = await finished(at, *TEXT)
        headers = {"Accept": "application/x-ndjson"}
        answer = await at.http.get(f"/api/v1/jobs/{job}/events", headers=headers)

        assert answer.headers["content-type"] == "application/x-ndjson"
        assert [json.loads(line) for line in answer.text.split("\n")[:-1]] == await at.heard(job)


async def test_fifty_subscribers_receive_the_same_live(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        job = await at.relay.enqueue()
        readers = [asyncio.create_task(at.heard(job)) for _ in range(50)]
        attempt_log = at.relay.attempt_log(await at.relay.claim())
        for number in range(200):
            attempt_log.append(Delta(content=f"{number} "))
            await asyncio.sleep(0.001)
        attempt_log.append(Done())
        heard = await asyncio.gather(*readers)

        assert len(heard[0]) == 203
        assert heard == [heard[0]] * 50


@pytest.mark.parametrize("how", ["header", "url"])
async def test_a_reader_who_returns_at_any_event_misses_and_doubles_nothing(
    how: str, shim: str, redis_url: str
) -> None:
    # vercel/resumable-stream: resume returns nothing once the stream has ended.
    async with stage(shim, redis_url) as at:
        job = await finished(at, *TEXT)
        whole = await at.heard(job)
        for seen, event in enumerate(whole[:-1], start=1):
            cursor: dict[str, Any] = (
                {"headers": {"Last-Event-ID": event["id"]}}
                if how == "header"
                else {"params": {"after": event["id"]}}
            )

            assert await at.heard(job, **cursor) == whole[seen:]


async def test_a_subscriber_disconnected_at_every_event_of_a_live_stream_receives_all(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        job = await at.relay.enqueue()
        attempt_log = at.relay.attempt_log(await at.relay.claim())
        heard: list[dict[str, Any]] = []
        for number in range(20):
            attempt_log.append(Delta(content=str(number)))
            params = {"after": heard[-1]["id"]} if heard else {}
            async with at.events(job, params=params) as response:
                async for event in sse(response):
                    heard.append(event)
                    if event["type"] == "delta":
                        break

        assert [e["content"] for e in heard if e["type"] == "delta"] == [str(n) for n in range(20)]
        assert [e["id"] for e in heard] == [f"1-{n}" for n in range(22)]


async def test_the_header_of_a_returning_browser_beats_the_cursor_in_its_url(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        job = await finished(at, "a", "b")
        heard = await at.heard(job, params={"after": "1-0"}, headers={"Last-Event-ID": "1-3"})

        assert [e["type"] for e in heard] == ["done"]


async def test_a_stream_begun_on_one_shim_is_resumed_on_another(shim: str, redis_url: str) -> None:
    # LocalAI #10993: resume works on the replica that owns the stream, and on no other.
    with serving(redis_url) as other:
        async with stage(shim, redis_url) as at, httpx.AsyncClient(base_url=other) as there:
            job = await at.relay.enqueue()
            attempt_log = at.relay.attempt_log(await at.relay.claim())
            attempt_log.append(Delta(content="one"))
            async with at.events(job) as response:
                async for event in sse(response):
                    if event["type"] == "delta":
                        break
            rest = asyncio.create_task(
                Stage(there, at.relay).heard(job, headers={"Last-Event-ID": event["id"]})
            )
            attempt_log.append(Delta(content="two"))
            attempt_log.append(Done())

            assert [e.get("content") for e in await rest] == ["two", None]


async def test_a_client_that_has_the_terminal_event_gets_204_and_stops(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        job = await finished(at, "a")
        last = (await at.heard(job))[-1]["id"]
        answer = await at.http.get(f"/api/v1/jobs/{job}/events", headers={"Last-Event-ID": last})

        assert (answer.status_code, answer.content) == (204, b"")


@pytest.mark.parametrize("cursor", ["abc", "1", "1-", "-1", "1-x", "\u0663-x"])
async def test_a_bad_cursor_is_named(cursor: str, shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        job = await finished(at)
        answer = await at.http.get(f"/api/v1/jobs/{job}/events", params={"after": cursor})

        assert "after is not a cursor" in problem(answer, 400, "invalid_cursor")["detail"]


async def test_an_unknown_job_is_404_and_an_odd_accept_406(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        for job in ("0" * 32, "nonsense", "*"):
            answer = await at.http.get(f"/api/v1/jobs/{job}/events")
            problem(answer, 404, "job_not_found")
        job = await finished(at)
        headers = {"Accept": "application/json"}
        answer = await at.http.get(f"/api/v1/jobs/{job}/events", headers=headers)

        problem(answer, 406, "not_acceptable")


async def test_a_waiting_subscriber_receives_each_new_position(shim: str, redis_url: str) -> None:
    # ollama #2004, #5253, gpustack #2116, vllm #13395: nobody is told how long the queue is.
    async with stage(shim, redis_url) as at:
        jobs = [await at.relay.enqueue() for _ in range(3)]
        positions: list[int] = []
        async with at.events(jobs[-1]) as response, asyncio.timeout(5):
            async for event in sse(response):
                if event["type"] == "started":
                    break
                assert ("id" in event) == (event["position"] is None)
                if "id" in event:
                    continue
                positions.append(event["position"])
                await at.relay.run(await at.relay.claim())

        assert positions == [3, 2, 1]


async def test_a_subscriber_that_reconnects_while_the_job_waits_receives_its_position(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        job = await at.relay.enqueue()
        async with at.events(job, params={"after": "1-0"}) as response, asyncio.timeout(5):
            event = await anext(sse(response))

        assert (event["type"], event["position"]) == ("queued", 1)
        assert "id" not in event


async def test_silence_is_filled_by_keep_alives(redis_url: str) -> None:
    with serving(redis_url, keepalive_s=0.05, place_every_s=60) as shim:
        async with stage(shim, redis_url) as at:
            job = await at.relay.enqueue()
            waiting = asyncio.create_task(_until(at, job, "application/x-ndjson", '{"at":'))
            assert '"type":"queued"' in await waiting
            await at.relay.claim()

            assert await _until(at, job, "text/event-stream", ":") == ": keep-alive"


async def _until(at: Stage, job: str, accept: str, start: str) -> str:
    async with (
        asyncio.timeout(5),
        at.events(job, headers={"Accept": accept}) as response,
    ):
        async for line in lines(response):
            if line.startswith(start):
                return line
    raise AssertionError("the stream ended")


async def test_a_reader_who_leaves_is_forgotten_at_once(
    shim: str, redis_url: str, redis_server: RedisServer
) -> None:
    async with stage(shim, redis_url) as at:
        waiting, running = await at.relay.enqueue(), await at.relay.enqueue()
        await at.relay.claim()
        async with at.events(waiting) as one, at.events(running) as other:
            readers = sse(one), sse(other)
            for reader in readers:
                await anext(reader)
            assert (followers(redis_server, waiting), followers(redis_server, running)) == (1, 1)
        await eventually(lambda: followers(redis_server, waiting) == 0)
        await eventually(lambda: followers(redis_server, running) == 0)


async def test_a_subscriber_that_stops_reading_slows_no_other(
    shim: str, redis_url: str, redis_server: RedisServer
) -> None:
    async with stage(shim, redis_url) as at:
        job = await at.relay.enqueue()
        attempt_log = at.relay.attempt_log(await at.relay.claim())
        host, port = httpx.URL(shim).host, httpx.URL(shim).port
        _, stuck = await asyncio.open_connection(host, port, limit=1024)
        stuck.write(b"GET /api/v1/jobs/%s/events HTTP/1.1\r\nHost: x\r\n\r\n" % job.encode())
        brisk = asyncio.create_task(at.heard(job))
        block = "x" * 10_000
        async with asyncio.timeout(15):
            for _ in range(2_000):
                attempt_log.append(Delta(content=block))
                await attempt_log.wait_for_room()
                await asyncio.sleep(0)
            attempt_log.append(Done())
            heard = await brisk
        size = sum(len(e.get("content", "")) for e in heard)

        assert size == 2_000 * len(block)
        stuck.transport.abort()
        with suppress(ConnectionError):
            await stuck.wait_closed()
        await eventually(lambda: followers(redis_server, job) == 0)


async def test_a_reader_lives_through_a_restart_of_redis(own_redis: RedisServer) -> None:
    with serving(own_redis.url) as shim:
        async with stage(shim, own_redis.url) as at:
            job = await at.relay.enqueue()
            attempt_log = at.relay.attempt_log(await at.relay.claim())
            attempt_log.append(Delta(content="before "))
            await attempt_log.flush()
            reader = asyncio.create_task(at.heard(job))
            await eventually(lambda: followers(own_redis, job) == 1)
            await asyncio.to_thread(own_redis.restart)
            attempt_log.append(Delta(content="after"))
            attempt_log.append(Done())
            async with asyncio.timeout(15):
                heard = await reader

            assert "".join(e.get("content", "") for e in heard) == "before after"
