"""When the last client of a job leaves, at any shim, `on_disconnect` decides what becomes of it.

Subjects: api_shim/following/drop_in.py, api_shim/following/event_stream.py, relay/followers.py.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import httpx
import pytest
from support.shim import CHAT, Stage, serving, sse, stage
from websockets.asyncio.client import connect

from contract import redis_keys
from contract.events import Delta

SOON = "cancel_after_s=0.1"


async def job(at: Stage, policy: str) -> str:
    await at.announce()
    told = await at.http.post(
        "/api/v1/jobs/chat", json=CHAT, headers={"X-Fleet-On-Disconnect": policy}
    )
    id: str = told.json()["id"]
    return id


async def ended_by(at: Stage, id: str) -> str:
    async with asyncio.timeout(30):
        last = (await at.relay.frames(id))[-1]
    return str(json.loads(last.body).get("by", last.type))


async def watched(at: Stage) -> int:
    return int(await at.relay.connection.command("ZCARD", redis_keys.FOLLOWED))


@asynccontextmanager
async def following(at: Stage, id: str, how: str) -> AsyncIterator[None]:
    """Follow, and leave at the end without a word."""
    if how == "websocket":
        address = str(at.http.base_url).replace("http", "ws", 1).rstrip("/")
        async with connect(f"{address}/api/v1/jobs/{id}/events", proxy=None) as line:
            await line.recv()
            yield
    else:
        async with at.events(id, headers={"Accept": how}) as response:
            pieces = response.aiter_bytes()  # held: it closes the connection when it is forgotten
            await anext(pieces)
            yield


@pytest.mark.parametrize("how", ["text/event-stream", "application/x-ndjson", "websocket"])
async def test_the_last_follower_that_leaves_ends_the_job(
    how: str, shim: str, redis_url: str
) -> None:
    # litellm #3341, #13774: a client that goes away leaves the backend generating.
    async with stage(shim, redis_url) as at:
        id = await job(at, SOON)
        async with following(at, id, how):
            pass

        assert await ended_by(at, id) == "disconnect"


async def test_a_client_that_leaves_before_it_follows_ends_the_job(redis_url: str) -> None:
    with serving(redis_url, lease_s=0.6, renew_s=0.2) as shim:
        async with stage(shim, redis_url) as at:
            id = await job(at, "cancel")

            assert await ended_by(at, id) == "disconnect"


async def test_a_job_that_is_to_continue_outlives_its_followers(shim: str, redis_url: str) -> None:
    # TurboLLM #177: a phone's tab slept, and its generations left nothing.
    # litellm #36275: callers of background jobs leave on purpose.
    async with stage(shim, redis_url) as at:
        id = await job(at, "continue")
        async with following(at, id, "text/event-stream"):
            assert await watched(at) == 0
        await at.relay.reconciler.reconcile()
        await at.relay.run(await at.relay.claim())

        assert await ended_by(at, id) == "done"


async def test_a_follower_on_another_shim_keeps_the_job(shim: str, redis_url: str) -> None:
    with serving(redis_url) as other:
        async with stage(shim, redis_url) as here, stage(other, redis_url) as there:
            id = await job(here, "cancel_after_s=0.2")
            async with following(there, id, "text/event-stream"):
                async with following(here, id, "text/event-stream"):
                    pass
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.6):
                        await here.relay.frames(id)

            assert await ended_by(here, id) == "disconnect"


async def test_a_browser_that_comes_back_at_once_loses_nothing(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        id = await job(at, "cancel")
        async with following(at, id, "text/event-stream"):
            pass
        async with at.events(id, headers={"Last-Event-ID": "1-0"}) as response:
            claim = await at.relay.claim()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(2.5):  # longer than `cancel` waits
                    await at.relay.frames(id)
            await at.relay.run(claim, Delta(content="a"))
            rest = [event["type"] async for event in sse(response) if "id" in event]

        assert rest == ["started", "delta", "done"]


async def test_stop_ends_a_resumed_stream(shim: str, redis_url: str) -> None:
    # vercel/ai #6502, #6823, #18458: stop could not end a stream that had been resumed.
    with serving(redis_url) as other:
        async with stage(shim, redis_url) as here, stage(other, redis_url) as there:
            id = await job(here, "cancel")
            async with following(here, id, "text/event-stream"):
                pass
            async with there.events(id, headers={"Last-Event-ID": "1-0"}) as response:
                await here.http.delete(f"/api/v1/jobs/{id}")
                rest = [event["type"] async for event in sse(response) if "id" in event]

            assert rest == ["cancelled"]
            assert await ended_by(here, id) == "caller"


async def test_a_resumed_stream_that_is_left_ends_the_job(shim: str, redis_url: str) -> None:
    # vercel/ai #6502, #6823, #18458: a tab that closes after it has resumed leaves it running.
    with serving(redis_url) as other:
        async with stage(shim, redis_url) as here, stage(other, redis_url) as there:
            id = await job(here, "cancel_after_s=0.3")
            for at in (here, there):
                async with following(at, id, "text/event-stream"):
                    pass

            assert await ended_by(here, id) == "disconnect"


async def test_a_poll_that_is_answered_is_no_disconnect(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        id = await job(at, "cancel")
        told = await at.http.get(f"/api/v1/jobs/{id}", params={"wait_s": 0.1})

        assert told.json()["status"] == "queued"
        assert await watched(at) == 0


async def test_a_poll_that_is_broken_off_is_a_disconnect(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        id = await job(at, SOON)
        with pytest.raises(httpx.ReadTimeout):
            await at.http.get(f"/api/v1/jobs/{id}", params={"wait_s": 60}, timeout=0.3)

        assert await ended_by(at, id) == "disconnect"


async def test_a_shim_that_restarts_takes_no_job_with_it(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        id = await job(at, "cancel")
        with ExitStack() as process:
            ending = process.enter_context(serving(redis_url))
            async with stage(ending, redis_url) as there, there.events(id) as response:
                pieces = response.aiter_bytes()
                await anext(pieces)
                process.close()
                assert b"cancelled" not in b"".join([piece async for piece in pieces])
        await at.relay.reconciler.reconcile()

        # Its lease is the time that its callers have to come back to another shim.
        assert await at.relay.connection.command("ZCARD", redis_keys.audience(id)) == 1
        assert (await at.relay.records.get(id)).status == "queued"
