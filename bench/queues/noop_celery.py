"""Celery: a task without any of the fleet around it, on our pool or on its own.

BENCH_POOL=ours celery -A bench.queues.noop_celery worker -P custom -c 64
BENCH_POOL=own celery -A bench.queues.noop_celery worker -c 2
"""

import os
import sys
import time

from celery import Celery

from bench.queues.countdown import KEY, URL, Countdown, client, wait
from workers.app import CELERY_SETTINGS
from workers.celery_pool.greenlet_bridge import async_task

POOL = os.environ.get("BENCH_POOL", "ours")
app = Celery("noop", broker=URL)
app.conf.update(task_ignore_result=True)
_countdown = Countdown()

if POOL == "ours":  # as a worker of the fleet sets Celery up
    app.conf.update(CELERY_SETTINGS)

    @async_task(app, name="noop")
    async def noop(total: int) -> None:
        """Do nothing."""
        _countdown.ran(total)

else:
    _all = client()

    @app.task(name="noop")  # type: ignore[untyped-decorator]
    def noop(total: int) -> None:
        """Count in Redis: there are several processes."""
        if _all.incr(f"{KEY}:{total}") == total:
            _all.delete(f"{KEY}:{total}")
            _all.rpush(KEY, total)


app.conf.task_default_queue = f"noop-{POOL}"


def main(total: int) -> float:
    """Enqueue; when it began."""
    app.send_task("noop", (1,))
    client().blpop([KEY], timeout=60)
    began = time.perf_counter()
    for _ in range(total):
        app.send_task("noop", (total,))
    return began


if __name__ == "__main__":
    wait(main(int(sys.argv[1])), int(sys.argv[1]))
