"""Callers leave while a real worker talks to a backend, and shims die with callers on the line."""

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.processes import Process, WorkerProcess, until_logged, worker
from support.redis_server import free_port
from support.relay import Relay, relay_on

SLOW = "scripted-story:chunks=600,rate=20"
QUICK = {"FLEET_LEASE_S": "1", "FLEET_RENEW_S": "0.3", "FLEET_REAP_S": "0.3"}


@asynccontextmanager
async def shim(redis_url: str, folder: Path) -> AsyncIterator[tuple[Process, str]]:
    port = free_port()
    words = [sys.executable, "-m", "api_shim", "--port", str(port)]
    process = Process(words, {"FLEET_REDIS_URL": redis_url, **QUICK}, folder / f"shim-{port}.log")
    try:
        await until_logged(process, "running on", 20)
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.end()


@asynccontextmanager
async def asking(url: str, policy: str) -> AsyncIterator[tuple[httpx.AsyncClient, str, Any]]:
    """A caller who has heard some of a long answer."""
    words = [{"role": "user", "content": "tell"}]
    body = {"model": SLOW, "backend": "scripted", "messages": words}
    async with httpx.AsyncClient(base_url=url, timeout=20) as http:
        headers = {"X-Fleet-On-Disconnect": policy}
        told = await http.post("/api/v1/jobs/chat", json=body, headers=headers)
        assert told.status_code == 202, told.text
        job = told.json()["id"]
        async with http.stream("GET", f"/api/v1/jobs/{job}/events") as response:
            pieces = response.aiter_text()
            async with asyncio.timeout(20):
                while not re.search("event: delta", await anext(pieces)):
                    pass
            yield http, job, pieces


async def last_word(relay: Relay, job: str) -> tuple[str, str]:
    async with asyncio.timeout(15):
        event = (await relay.frames(job))[-1].event
    return event.type, getattr(event, "by", "")


async def until_idle(relay: Relay, one: WorkerProcess) -> None:
    """Wait until the worker reports no job: its backend's stream is closed."""
    async with asyncio.timeout(15):
        while any(
            queue.in_flight
            for report in await relay.roster.workers()
            for queue in report.queues
            if report.name == one.name
        ):
            await asyncio.sleep(0.05)


async def test_a_caller_that_leaves_stops_the_backend(redis_url: str, tmp_path: Path) -> None:
    # litellm #3341, #13774, #30244: the backend went on generating for half an hour.
    async with relay_on(redis_url) as relay, shim(redis_url, tmp_path) as (_, url):
        with worker(redis_url, tmp_path, **QUICK) as one:
            await one.ready(relay)
            async with asking(url, "cancel_after_s=0.1") as (_, job, _):
                pass

            assert await last_word(relay, job) == ("cancelled", "disconnect")
            await until_idle(relay, one)


@pytest.mark.parametrize("policy", ["cancel", "cancel_after_s=0.5"])
async def test_a_killed_shim_counts_no_followers_for_ever(
    policy: str, redis_url: str, tmp_path: Path
) -> None:
    async with relay_on(redis_url) as relay, shim(redis_url, tmp_path) as (process, url):
        with worker(redis_url, tmp_path, **QUICK) as one:
            await one.ready(relay)
            async with asking(url, policy) as (_, job, _):
                process.send(signal.SIGKILL)

            assert await last_word(relay, job) == ("cancelled", "disconnect")
            await until_idle(relay, one)


async def test_a_caller_of_a_killed_shim_who_comes_back_elsewhere_keeps_the_job(
    redis_url: str, tmp_path: Path
) -> None:
    async with (
        relay_on(redis_url) as relay,
        shim(redis_url, tmp_path) as (process, url),
        shim(redis_url, tmp_path) as (_, other),
    ):
        with worker(redis_url, tmp_path, **QUICK) as one:
            await one.ready(relay)
            async with asking(url, "cancel") as (_, job, _):
                process.send(signal.SIGKILL)
                async with httpx.AsyncClient(base_url=other, timeout=20) as http:
                    async with http.stream("GET", f"/api/v1/jobs/{job}/events") as response:
                        pieces = response.aiter_text()
                        with pytest.raises(TimeoutError):
                            async with asyncio.timeout(3):  # three leases
                                await relay.frames(job)
                        assert await anext(pieces)
                    status = (await http.delete(f"/api/v1/jobs/{job}")).json()["status"]

            assert status == "cancelled"
            assert (await last_word(relay, job)) == ("cancelled", "caller")
