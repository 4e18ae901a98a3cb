"""Streams through nginx and Caddy, set up as docs/hardening.md says: at once, and whole."""

import asyncio
from contextlib import suppress

import httpx
import pytest
from support.behind import Behind
from support.surfaces import SURFACES, Surface, ask

LONG = "scripted-story:chunks=600,rate=20"
CANCEL = {"X_Fleet_On_Disconnect": "cancel"}
CHATS = [each for each in SURFACES if each.kind == "chat"]
WHOLE = [each for each in CHATS if not each.is_native]


@pytest.mark.parametrize("surface", CHATS, ids=lambda each: each.name)
async def test_words_come_while_more_are_made_and_a_client_that_leaves_ends_its_job(
    behind: Behind, surface: Surface
) -> None:
    async with behind.client() as http:
        client = ask(surface, http, model=LONG, **CANCEL)
        await client.until(lambda heard: heard.text.count(" ") > 3)
        status = await behind.status(client.job)
        await client.leave()

        assert status == "running"
        await behind.until(client.job, "cancelled")


@pytest.mark.parametrize("surface", WHOLE, ids=lambda each: each.name)
async def test_a_client_that_leaves_before_its_whole_answer_ends_its_job(
    behind: Behind, surface: Surface
) -> None:
    async with behind.client(behind.shim.issue(surface.name)["key"]) as http:
        asking = asyncio.create_task(surface.whole(http, "hello", LONG))
        job = await only_job(http, "running")
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking

        await behind.until(job, "cancelled")


async def only_job(http: httpx.AsyncClient, status: str) -> str:
    """The id of the only job of a tenant, once it has this status."""
    async with asyncio.timeout(20):
        while True:
            jobs = (await http.get("/api/v1/jobs", params={"status": status})).json()["jobs"]
            if jobs:
                return str(jobs[0]["id"])
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("surface", CHATS, ids=lambda each: each.name)
async def test_a_stream_is_whole(behind: Behind, surface: Surface) -> None:
    async with behind.client() as http:
        heard = await ask(surface, http, model="scripted-story:chunks=50").ended()
        whole = await surface.whole(http, "hello", "scripted-story:chunks=50")

        assert heard.text == whole
        assert heard.end == "done"
