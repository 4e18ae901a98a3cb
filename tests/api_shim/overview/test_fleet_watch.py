"""Watching the fleet costs Redis the same, whoever watches and whatever waits.

Subjects: api_shim/overview/fleet_watch.py, api_shim/overview/fleet_reader.py.
"""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any

import httpx
from support.redis_server import RedisServer
from support.relay import QUEUE, Relay, chat
from support.shim import Stage, serving, stage

WATCHED_S = 3.0
QUEUES = 10
COMMANDS_A_SECOND = (20 + 4 * QUEUES) * (1 + 1 / WATCHED_S)
"""Nine for a state and some of the shim's own, and in the script four for each queue; a read more
may fall into the time that is watched."""
BUSY = 6
"""More for a queue that holds jobs."""


async def states(response: httpx.Response) -> AsyncGenerator[tuple[str, dict[str, Any]]]:
    name = ""
    async for line in response.aiter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


@asynccontextmanager
async def watching(at: Stage) -> AsyncGenerator[AsyncGenerator[tuple[str, dict[str, Any]]]]:
    async with at.http.stream("GET", "/api/v1/overview/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        async with aclosing(states(response)) as events:
            yield events


async def commands(relay: Relay) -> int:
    """Commands so far, with those inside scripts."""
    told = await relay.connection.command("INFO", "stats")
    return int(told["total_commands_processed"])


async def cost_a_second(at: Stage, watchers: int) -> tuple[float, dict[str, Any]]:
    async with AsyncExitStack() as stack:
        state: dict[str, Any] = {}
        streams = [await stack.enter_async_context(watching(at)) for _ in range(watchers)]
        for events in streams:
            _, state = await anext(events)
        before = await commands(at.relay)
        await asyncio.sleep(WATCHED_S)
        after = await commands(at.relay)
        for events in streams:
            _, state = await anext(events)
    return (after - before) / WATCHED_S, state


async def test_fifty_pages_cost_redis_what_one_costs(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        one, _ = await cost_a_second(at, 1)
        many, _ = await cost_a_second(at, 50)

        assert one < COMMANDS_A_SECOND
        assert many < COMMANDS_A_SECOND


async def test_a_thousand_waiting_jobs_cost_what_none_costs(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        for _ in range(1000):
            await at.relay.queue.enqueue(chat(priority="batch"), queue=QUEUE)
        cost, state = await cost_a_second(at, 1)

        assert cost < COMMANDS_A_SECOND + BUSY
        assert state["waiting"] == 1000


async def test_nobody_who_watches_costs_nothing(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        idle = await cost_a_second(at, 0)
        async with watching(at) as events:
            await anext(events)
        await asyncio.sleep(1.5)

        assert (await cost_a_second(at, 0))[0] < idle[0] + 4 * QUEUES / 2


async def test_a_state_counts_what_waits_runs_and_has_ended(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce(capabilities=("chat",))
        await at.relay.run(await _claimed(at, "first"))
        await _claimed(at, "second")
        await at.relay.enqueue(priority="batch")
        await at.relay.enqueue(priority="interactive")
        state = (await at.http.get("/api/v1/overview")).json()
        [queue] = [each for each in state["queues"] if each["name"] == QUEUE]

        assert (state["waiting"], state["running"], state["ended"][-1]) == (2, 1, 1)
        assert (queue["depth"], queue["urgent"], queue["running"]) == (2, 1, 1)
        assert queue["interactive"] == 1
        assert queue["tenants"] == {"default": 2}
        assert queue["oldest_s"] >= 0
        assert [each["name"] for each in state["workers"]] == ["scripted-1"]
        assert [each["models"] for each in state["backends"]] == [1]
        assert state["concerns"] == []


async def _claimed(at: Stage, text: str) -> Any:
    await at.relay.enqueue(text)
    return await at.relay.claim()


async def test_the_roster_revision_changes_with_the_models_only(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce("scripted", "a")
        first = (await at.http.get("/api/v1/overview")).json()["roster_revision"]
        await at.relay.enqueue()
        same = (await at.http.get("/api/v1/overview")).json()["roster_revision"]
        await at.announce("scripted", "a", "b")
        other = (await at.http.get("/api/v1/overview")).json()["roster_revision"]

        assert first == same != other


async def test_a_backend_whose_workers_have_ended_is_shown_without_workers(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce("awake")
        asleep = await at.announce("asleep", "a", "b")
        await at.relay.roster.leave(asleep.name)
        state = (await at.http.get("/api/v1/overview")).json()

    told = [(each["name"], each["workers"], each["models"]) for each in state["backends"]]
    assert told == [("asleep", 0, 2), ("awake", 1, 1)]
    assert state["concerns"] == []


async def test_a_page_is_told_when_redis_is_gone_and_when_it_is_back(
    own_redis: RedisServer,
) -> None:
    with serving(own_redis.url, command_timeout_s=0.5) as url:
        async with stage(url, own_redis.url) as at, watching(at) as events:
            assert (await anext(events))[0] == "overview"
            own_redis.stop()
            async with asyncio.timeout(20):
                while (await anext(events))[0] != "unavailable":
                    pass
            own_redis.start()
            async with asyncio.timeout(20):
                while (await anext(events))[0] != "overview":
                    pass
            assert (await anext(events))[1]["waiting"] == 0
