"""What idle workers ask of Redis, counted in commands, which no load of the machine changes."""

import asyncio
from pathlib import Path

from support.processes import worker
from support.redis_server import RedisServer
from support.relay import relay_on

from bench.idle import COMMANDS_A_SECOND, EACH, FLEET, counted

WATCHED_S = 20.0


async def test_a_hundred_idle_workers_would_ask_less_than_the_bound(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    chat = {"FLEET_WORKER_KINDS": "chat"}
    with worker(own_redis.url, tmp_path, **chat) as one, worker(own_redis.url, tmp_path, **chat):
        async with relay_on(own_redis.url, command_timeout_s=60) as relay:
            await one.ready(relay)
            while len(await relay.roster.workers()) < 2:
                await asyncio.sleep(0.1)
            await asyncio.sleep(10)
            before = await counted(relay.connection)
            await asyncio.sleep(WATCHED_S)
            after = await counted(relay.connection)
        asked = {name: calls - before.get(name, 0) for name, calls in after.items()}
        each = sum(calls for name, calls in asked.items() if name in EACH) / 2
        rest = sum(calls for name, calls in asked.items() if name not in EACH)

        assert (FLEET * each + rest) / WATCHED_S < COMMANDS_A_SECOND * 1.5, asked
        assert rest > 0
