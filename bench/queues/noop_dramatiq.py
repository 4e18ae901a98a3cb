"""dramatiq: a task on threads (`dramatiq bench.queues.noop_dramatiq -p 1 -t 8`)."""

import sys
import threading
import time

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from bench.queues.countdown import KEY, URL, Countdown, client, wait

dramatiq.set_broker(RedisBroker(url=URL))
_countdown, _lock = Countdown(), threading.Lock()


@dramatiq.actor(max_retries=0)  # type: ignore[untyped-decorator]
def noop(total: int) -> None:
    """Do nothing."""
    with _lock:
        _countdown.ran(total)


def main(total: int) -> float:
    """Enqueue; when it began."""
    noop.send(1)
    client().blpop([KEY], timeout=60)
    began = time.perf_counter()
    for _ in range(total):
        noop.send(total)
    return began


if __name__ == "__main__":
    wait(main(int(sys.argv[1])), int(sys.argv[1]))
