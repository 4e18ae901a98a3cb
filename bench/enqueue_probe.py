"""How long an enqueue takes, one after the other: the fleet's over HTTP, and Celery's `delay`.

    python -m bench.enqueue_probe PORT BACKEND REDIS_URL SAMPLES

A process of its own, because the load generator is busy with its streams. Prints milliseconds.
"""

import asyncio
import json
import sys
import time
from typing import Final

import uvloop
from celery import Celery

from bench.drive import LIMIT_S, connected
from bench.targets import Fleet, model

PAUSE_S: Final = 0.01
_UNREAD: Final = "bench.unread"
"""A Celery queue that nobody reads."""


async def fleet_ms(fleet: Fleet, samples: int) -> list[float]:
    """Milliseconds until 202, with pauses."""
    request, took = fleet.request(model(1)), []
    async with connected(fleet.port, 1) as lines, asyncio.timeout(LIMIT_S):
        await lines[0].ask(request)
        for _ in range(samples):
            answer = await lines[0].ask(request)
            took.append((answer.ended - answer.began) * 1000)
            await asyncio.sleep(PAUSE_S)
    return took


def celery_ms(url: str, samples: int) -> list[float]:
    """Milliseconds that `delay` takes: a message in a list, and nothing else."""
    app = Celery("bench", broker=url)
    app.conf.task_ignore_result = True

    @app.task(name="bench.noop")  # type: ignore[untyped-decorator]
    def noop() -> None:
        """Run by nobody."""

    took = []
    for number in range(samples + 1):
        began = time.perf_counter()
        noop.apply_async(queue=_UNREAD)
        if number:
            took.append((time.perf_counter() - began) * 1000)
        time.sleep(PAUSE_S)
    return took


def main() -> None:
    """Measure one, then the other."""
    port, backend, url, samples = sys.argv[1:]
    ours = uvloop.run(fleet_ms(Fleet(int(port), backend), int(samples)))
    print(json.dumps({"fleet": ours, "Celery": celery_ms(url, int(samples))}))


if __name__ == "__main__":
    main()
