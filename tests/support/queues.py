"""What is left of jobs in queues: for tests that say that nothing is."""

import asyncio

from contract import redis_keys
from support.relay import Relay

_OF_LIVING_JOBS = (redis_keys.LIVE, redis_keys.DEADLINES, redis_keys.FOLLOWED)


async def left_in_queues(relay: Relay) -> list[str]:
    """Keys of queues that do not expire by themselves, and indexes of jobs that live."""
    keys = await relay.connection.command("KEYS", "fleet:q:*")
    lasting = [key for key in keys if await relay.connection.command("TTL", key) == -1]
    for index in _OF_LIVING_JOBS:
        lasting += await relay.connection.command("ZRANGE", index, 0, -1)
    return sorted(key.decode() for key in lasting)


async def nothing_waits(relay: Relay, within_s: float = 2.0) -> None:
    """Wait until no queue holds anything; fails with what is left."""
    give_up_at = asyncio.get_running_loop().time() + within_s
    while left := await left_in_queues(relay):
        assert asyncio.get_running_loop().time() < give_up_at, left
        await asyncio.sleep(0.02)
