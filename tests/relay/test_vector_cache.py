"""The cache of vectors: no error of the cache fails a job."""

import asyncio

import pytest
from support.redis_server import RedisServer
from support.relay import Relay, relay_on

from contract import redis_keys
from relay.vector_cache import VectorCache

ROW = b"\x00\x00\x80?" * 4


def cache(relay: Relay, ttl_s: float = 60.0, backend: str = "box") -> VectorCache:
    return VectorCache(relay.connection, backend, ttl_s)


async def test_vectors_are_returned_in_the_requested_order(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        rows = {f"d{number}": bytes([number]) * 4 for number in range(200)}
        await cache(relay).put(rows)

        found = await cache(relay).get(["d7", "unknown", *rows])
        assert found == [rows["d7"], None, *rows.values()]


async def test_backends_do_not_share_vectors(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await cache(relay).put({"d": ROW})

        assert await cache(relay, backend="other").get(["d"]) == [None]


async def test_a_vector_expires_after_its_ttl(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await cache(relay, ttl_s=30).put({"d": ROW})

        ttl_ms = await relay.connection.command("PTTL", redis_keys.vector("box", "d"))
        assert 0 < ttl_ms <= 30_000


async def test_without_redis_every_read_is_a_miss_and_nothing_raises(
    own_redis: RedisServer,
) -> None:
    async with relay_on(own_redis.url, command_timeout_s=1) as relay:
        one = cache(relay)
        await one.put({"d": ROW})
        own_redis.stop()
        async with asyncio.timeout(5):
            found = await one.get(["d"])
            await one.put({"d": ROW})

        assert found == [None]


async def test_nothing_is_written_to_a_nearly_full_redis(own_redis: RedisServer) -> None:
    async with relay_on(own_redis.url) as relay:
        used = (await relay.connection.command("INFO", "memory"))["used_memory"]
        await relay.connection.command("CONFIG", "SET", "maxmemory", int(used * 1.1))
        await cache(relay).put({"d": ROW})

        assert await relay.connection.command("EXISTS", redis_keys.vector("box", "d")) == 0


@pytest.mark.parametrize(("high_water", "is_stored"), [(0.8, True), (0.7, False), (1.0, True)])
async def test_vectors_never_take_the_room_for_which_ended_jobs_are_removed(
    own_redis: RedisServer, high_water: float, *, is_stored: bool
) -> None:
    async with relay_on(own_redis.url, memory_high_water=high_water) as relay:
        used, _ = await relay.connection.memory()
        await relay.connection.command("CONFIG", "SET", "maxmemory", int(used / 0.65))
        await cache(relay).put({"d": ROW})
        found = await relay.connection.command("EXISTS", redis_keys.vector("box", "d"))

        assert is_stored == bool(found)


async def test_a_full_redis_stores_nothing_and_raises_nothing(own_redis: RedisServer) -> None:
    async with relay_on(own_redis.url) as relay:
        one = cache(relay)
        await one.put({"first": ROW})
        await relay.connection.command("CONFIG", "SET", "maxmemory", 1)
        await one.put({"second": ROW})
        await relay.connection.command("CONFIG", "SET", "maxmemory", 0)

        assert await cache(relay).get(["first", "second"]) == [ROW, None]
