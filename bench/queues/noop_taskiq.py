"""taskiq: a task on asyncio (`taskiq worker bench.queues.noop_taskiq:broker`)."""

import asyncio
import sys

from taskiq_redis import ListQueueBroker

from bench.queues.countdown import URL, Countdown, enqueued, wait

broker = ListQueueBroker(URL, max_connection_pool_size=80, socket_timeout=None)
_countdown = Countdown()


@broker.task(task_name="noop")  # type: ignore[untyped-decorator]
async def noop(total: int) -> None:
    """Do nothing."""
    _countdown.ran(total)


async def main(total: int) -> float:
    """Enqueue; when it began."""
    await broker.startup()
    began = await enqueued(noop.kiq, total)
    await broker.shutdown()
    return began


if __name__ == "__main__":
    wait(asyncio.run(main(int(sys.argv[1]))), int(sys.argv[1]))
