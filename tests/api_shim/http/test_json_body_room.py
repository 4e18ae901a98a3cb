"""Large bodies that come slowly do not keep those of others out.

Subjects: api_shim/http/json_body.py.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from support.keys import bearer, keyed
from support.redis_server import RedisServer

ROOM_BYTES = 800_000
LARGE = {"model": "m", "messages": [{"role": "user", "content": "x" * 300_000}]}
PATH = "/api/v1/jobs/chat"


@asynccontextmanager
async def slow_body(url: str, key: str) -> AsyncGenerator[asyncio.StreamReader]:
    """A body that has sent a quarter of what it announces, and goes on a byte at a time."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {bearer(key)['authorization']}"
    )
    head += f"\r\nContent-Type: application/json\r\nContent-Length: {ROOM_BYTES // 2}\r\n\r\n"
    writer.write(head.encode() + b" " * 200_000)
    sending = asyncio.create_task(_drip(writer))
    try:
        yield reader
    finally:
        sending.cancel()
        writer.close()


async def _drip(writer: asyncio.StreamWriter) -> None:
    while True:
        await asyncio.sleep(0.05)
        writer.write(b" " * 50)


async def test_slow_bodies_lose_their_room_to_one_who_waits(own_redis: RedisServer) -> None:
    with keyed(own_redis.url, max_bodies_bytes=ROOM_BYTES) as fleet:
        keys = [fleet.issue(tenant)["key"] for tenant in ("one", "two")]
        async with (
            slow_body(fleet.url, keys[0]) as first,
            slow_body(fleet.url, keys[1]) as second,
            fleet.caller("three") as third,
        ):
            await asyncio.sleep(0.5)
            answer = await third.post(PATH, json=LARGE, headers={"x-fleet-backend": "b"})
            done, kept = await asyncio.wait(
                [asyncio.create_task(each.readline()) for each in (first, second)],
                return_when=asyncio.FIRST_COMPLETED,
            )
            for each in kept:
                each.cancel()

        assert answer.json()["code"] != "too_many_bodies"
        assert [each.result().split()[1] for each in done] == [b"408"]


async def test_keys_of_a_tenant_share_its_half(own_redis: RedisServer) -> None:
    with keyed(own_redis.url, max_bodies_bytes=ROOM_BYTES) as fleet:
        keys = [fleet.issue("one")["key"] for _ in range(2)]
        async with slow_body(fleet.url, keys[0]), slow_body(fleet.url, keys[1]):
            await asyncio.sleep(0.5)
            async with fleet.caller("two") as other, asyncio.timeout(1):
                answer = await other.post(PATH, json=LARGE)

        assert answer.json()["code"] != "too_many_bodies"
