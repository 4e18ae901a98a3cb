"""The connection that all callers share."""

import asyncio
import os
import signal
import time

import pytest
from redis import Redis
from redis.exceptions import ResponseError
from support.redis_server import RedisServer, free_port
from support.relay import Relay, relay_on

from contract.errors import RelayUnavailable
from relay.multiplexer import LargeWord


async def stat(relay: Relay, name: str) -> int:
    return int((await relay.connection.command("INFO", "stats"))[name])


async def test_the_commands_of_a_tick_leave_in_few_writes(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        before = await stat(relay, "total_reads_processed")
        await asyncio.gather(*(relay.connection.ping() for _ in range(200)))
        reads = await stat(relay, "total_reads_processed") - before

    assert reads <= 200 / 8 + 5  # the pings, the two INFO, and what the subscriber sends


async def test_the_first_commands_of_a_burst_run_while_the_last_are_still_made(
    redis_url: str,
) -> None:
    async def look(sync: Redis) -> int:
        for _ in range(200):  # the event loop does nothing else meanwhile
            if (count := int(sync.get("count") or 0)) >= 16:  # type: ignore[arg-type]
                break
            time.sleep(0.01)  # noqa: ASYNC251 - a caller that is busy
        return count

    async with relay_on(redis_url) as relay:
        await relay.connection.ping()
        with Redis.from_url(redis_url) as sync:
            calls = [relay.connection.command("INCR", "count") for _ in range(20)]
            *_, seen = await asyncio.gather(*calls, look(sync))

    assert seen == 16


async def test_every_caller_gets_its_own_replies_in_order(redis_url: str) -> None:
    async def echo(relay: Relay, number: int) -> list[str]:
        commands = [("ECHO", f"{number}-{part}") for part in range(number % 7 + 1)]
        return [reply.decode() for reply in await relay.connection.pipeline(commands)]

    async with relay_on(redis_url) as relay:
        replies = await asyncio.gather(*(echo(relay, number) for number in range(300)))

    assert replies == [[f"{n}-{part}" for part in range(n % 7 + 1)] for n in range(300)]


async def test_an_error_reply_reaches_its_caller_alone(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        first, wrong, last = await asyncio.gather(
            relay.connection.command("ECHO", "a"),
            relay.connection.command("HGET", "too", "many", "arguments"),
            relay.connection.command("ECHO", "b"),
            return_exceptions=True,
        )

    assert (first, last) == (b"a", b"b")
    assert isinstance(wrong, ResponseError)


async def test_a_caller_that_is_cancelled_takes_its_reply_with_it(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        leaving = asyncio.create_task(relay.connection.command("ECHO", "left"))
        staying = asyncio.create_task(relay.connection.command("ECHO", "stayed"))
        await asyncio.sleep(0)
        leaving.cancel()

        assert await staying == b"stayed"
        assert leaving.cancelled() or leaving.cancelling()


async def test_a_connection_that_is_killed_under_its_callers_costs_none_of_them_a_reply(
    redis_url: str,
) -> None:
    async def echo(relay: Relay, number: int) -> bytes:
        for _ in range(5):
            reply: bytes = await relay.connection.command("ECHO", number)
        return reply

    async with relay_on(redis_url) as relay, relay_on(redis_url) as killer:
        echoes = [asyncio.create_task(echo(relay, number)) for number in range(100)]
        for _ in range(3):
            await killer.connection.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

        assert await asyncio.gather(*echoes) == [b"%d" % number for number in range(100)]


async def test_a_server_that_has_become_a_replica_is_left_for_the_one_at_its_address(
    redis_server: RedisServer,
) -> None:
    async with relay_on(redis_server.url) as relay:
        before = await relay.connection.command("CLIENT", "ID")
        await relay.connection.command("REPLICAOF", "127.0.0.1", free_port())
        with pytest.raises(RelayUnavailable, match="replica"):
            await relay.connection.command("SET", "k", "v")
        await relay.connection.command("REPLICAOF", "NO", "ONE")

        await relay.connection.command("SET", "k", "v")
        assert await relay.connection.command("CLIENT", "ID") > before


async def test_what_may_wait_for_a_silent_server_is_bounded(redis_server: RedisServer) -> None:
    async with relay_on(redis_server.url, command_timeout_s=1.0) as relay:
        await relay.connection.ping()
        assert redis_server.process is not None
        os.kill(redis_server.process.pid, signal.SIGSTOP)
        calls = [asyncio.create_task(relay.connection.ping()) for _ in range(20_100)]
        await asyncio.sleep(0.3)
        os.kill(redis_server.process.pid, signal.SIGCONT)

        # Those that found no room came again after a pause.
        assert await asyncio.gather(*calls) == [None] * len(calls)


async def test_a_process_that_was_stopped_reads_its_replies_before_it_calls_redis_silent(
    redis_url: str,
) -> None:
    async with relay_on(redis_url, command_timeout_s=0.2) as relay:
        before = await relay.connection.command("CLIENT", "ID")
        call = asyncio.create_task(relay.connection.command("CLIENT", "ID"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        time.sleep(0.4)  # noqa: ASYNC251 - as SIGSTOP or a long computation does

        assert await call == before


async def test_a_large_word_arrives_whole_between_others(redis_url: str) -> None:
    large = bytes(range(256)) * 8192
    pieces = [large[:7], b"", large[7:]]
    async with relay_on(redis_url) as relay:
        wrote, read, small = await asyncio.gather(
            relay.connection.pipeline([("SET", "large", LargeWord(*pieces), "EX", 60), ("PING",)]),
            relay.connection.command("GET", "large"),
            relay.connection.command("ECHO", "é"),
        )

    assert wrote == [True, True]
    assert read == large
    assert small == "é".encode()


async def test_what_is_no_word_is_an_error_beside_a_large_word(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        with pytest.raises(TypeError):
            await relay.connection.command("SET", "a", LargeWord(b"x"), None)  # type: ignore[arg-type]

        assert await relay.connection.command("ECHO", "still here") == b"still here"
