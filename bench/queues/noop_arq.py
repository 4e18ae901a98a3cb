"""arq: a task on asyncio (`arq bench.queues.noop_arq.Settings`)."""

import asyncio
import sys
from typing import Any, ClassVar

from arq import create_pool
from arq.connections import RedisSettings

from bench.queues.countdown import URL, Countdown, enqueued, wait

_countdown = Countdown()
QUIET = {"version": 1, "loggers": {"arq": {"level": "WARNING"}}}


async def noop(_: dict[Any, Any], total: int) -> None:
    """Do nothing."""
    _countdown.ran(total)


class Settings:
    """Of the worker: as many tasks at once as the others have, the shortest poll that keeps up."""

    functions: ClassVar = [noop]
    redis_settings = RedisSettings.from_dsn(URL)
    max_jobs = 64
    poll_delay = 0.01
    keep_result = 0


async def main(total: int) -> float:
    """Enqueue; when it began."""
    pool = await create_pool(Settings.redis_settings)
    began = await enqueued(lambda each: pool.enqueue_job("noop", each), total)
    await pool.aclose()
    return began


if __name__ == "__main__":
    wait(asyncio.run(main(int(sys.argv[1]))), int(sys.argv[1]))
