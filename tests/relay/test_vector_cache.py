"""The cache of vectors: it may forget at any time, and no trouble of its own reaches a job."""

import asyncio

from support.redis_server import RedisServer
from support.relay import Relay, relay_on

from contract import redis_keys
from relay.vector_cache import VectorCache

ROW = b"\x00\x00\x80?" * 4


def cache(relay: Relay, ttl_s: float = 60.0, backend: str = "box") -> VectorCache:
    return VectorCache(relay.connection, backend, ttl_s)


async def test_what_was_put_is_there_in_the_order_that_is_asked(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        rows = {f"d{number}": bytes([number]) * 4 for number in range(200)}
        await cache(relay).put(rows)

        found = await cache(relay).get(["d7", "unknown", *rows])
        assert found == [rows["d7"], None, *rows.values()]


async def test_backends_do_not_share_vectors(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await cache(relay).put({"d": ROW})

        assert await cache(relay, backend="other").get(["d"]) == [None]


async def test_a_vector_lives_as_long_as_was_said(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await cache(relay, ttl_s=30).put({"d": ROW})

        ttl_ms = await relay.connection.command("PTTL", redis_keys.vector("box", "d"))
        assert 0 < ttl_ms <= 30_000


async def test_without_redis_nothing_is_known_and_nothing_raised(own_redis: RedisServer) -> None:
    async with relay_on(own_redis.url, command_timeout_s=1) as relay:
        one = cache(relay)
        await one.put({"d": ROW})
        own_redis.stop()
        async with asyncio.timeout(5):
            found = await one.get(["d"])
            await one.put({"d": ROW})

        assert found == [None]


async def test_a_redis_that_is_nearly_full_gets_no_more(own_redis: RedisServer) -> None:
    async with relay_on(own_redis.url) as relay:
        used = (await relay.connection.command("INFO", "memory"))["used_memory"]
        await relay.connection.command("CONFIG", "SET", "maxmemory", int(used * 1.1))
        await cache(relay).put({"d": ROW})

        assert await relay.connection.command("EXISTS", redis_keys.vector("box", "d")) == 0


async def test_a_full_redis_keeps_nothing_and_says_so_to_nobody(own_redis: RedisServer) -> None:
    async with relay_on(own_redis.url) as relay:
        one = cache(relay)
        await one.put({"first": ROW})
        await relay.connection.command("CONFIG", "SET", "maxmemory", 1)
        await one.put({"second": ROW})
        await relay.connection.command("CONFIG", "SET", "maxmemory", 0)

        assert await cache(relay).get(["first", "second"]) == [ROW, None]
