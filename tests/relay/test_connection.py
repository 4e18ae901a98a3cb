"""The line to Redis, where its client needs watching."""

import asyncio
from typing import Never

import pytest
from support.relay import Relay, relay_on

KINDS = ("command", "pipeline", "run")


async def ask(relay: Relay, kind: str) -> Never:
    while True:
        match kind:
            case "command":
                await relay.connection.command("PING")
            case "pipeline":
                await relay.connection.pipeline([("PING",)])
            case _:
                await relay.connection.run("return 1")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_cancellation_in_the_middle_of_a_command_is_never_lost(
    redis_url: str, kind: str
) -> None:
    # python/cpython #86296: asyncio.wait_for, which redis-py sends with, swallowed every other one.
    async with relay_on(redis_url) as relay:
        for turns in range(200):
            task = asyncio.create_task(ask(relay, kind))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            done, _ = await asyncio.wait({task}, timeout=2)

            assert {task} == done, f"the cancellation after {turns} turns was swallowed"


async def test_in_a_burst_every_task_gets_a_connection_in_turn(redis_url: str) -> None:
    # With redis-py's pool alone, some tasks had no answer yet when others had all of theirs.
    answers = [0] * 300

    async with relay_on(redis_url) as relay:

        async def ping(number: int) -> int:
            for _ in range(20):
                await relay.connection.ping()
                answers[number] += 1
            return min(answers)

        fewest = await asyncio.gather(*(ping(number) for number in range(len(answers))))

    assert min(fewest) >= 10
