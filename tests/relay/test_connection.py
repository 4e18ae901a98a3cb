"""The line to Redis, where its client needs watching."""

import asyncio
from typing import Never

import pytest
from pydantic import SecretStr
from support.redis_server import RedisServer
from support.relay import Relay, relay_on

from contract.errors import RelayUnavailable
from relay.connection import Connection
from relay.settings import RelaySettings

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


def noting(word: str) -> tuple[str, list[str], list[str]]:
    """A call of a script that adds this word to a list."""
    return f"return redis.call('RPUSH', KEYS[1], '{word}')", ["words"], []


@pytest.mark.parametrize("is_new_here", [True, False], ids=["new here", "known here"])
async def test_scripts_run_in_turn_also_if_redis_knows_only_the_later_one(
    redis_url: str, *, is_new_here: bool
) -> None:
    """Sent by hash, the later one ran first: a job was in its queue and had no record."""
    first, second = noting("first"), noting("second")
    async with relay_on(redis_url) as relay, relay_on(redis_url) as other:
        await relay.connection.command("SCRIPT", "FLUSH")
        if not is_new_here:
            await relay.connection.run_in_turn([first, second])
            await relay.connection.command("SCRIPT", "FLUSH")
            await relay.connection.run_in_turn([second, second])
        await other.connection.run(*second)
        await relay.connection.command("DEL", "words")
        await relay.connection.run_in_turn([first, second])

        assert await relay.connection.command("LRANGE", "words", 0, -1) == [b"first", b"second"]


async def test_after_a_lost_connection_scripts_run_in_turn(own_redis: RedisServer) -> None:
    first, second = noting("first"), noting("second")
    async with relay_on(own_redis.url) as relay, relay_on(own_redis.url) as other:
        await relay.connection.run_in_turn([first, second])
        own_redis.restart()
        await relay.connection.ping()
        await other.connection.run(*second)
        await relay.connection.command("DEL", "words")
        await relay.connection.run_in_turn([first, second])

        assert await relay.connection.command("LRANGE", "words", 0, -1) == [b"first", b"second"]


@pytest.mark.parametrize("greeting", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x01\r\n"])
async def test_another_program_at_the_address_is_an_outage(greeting: bytes) -> None:
    """It was an internal error of every request: 500 instead of 503."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(greeting)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        settings = RelaySettings(redis_url=SecretStr(f"redis://127.0.0.1:{port}/0"))
        async with Connection.open(settings) as connection:
            with pytest.raises(RelayUnavailable, match="NotRedis"):
                await connection.ping()
