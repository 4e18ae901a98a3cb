"""Real processes of the fleet for a test: started, awaited, killed by their own id."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from support.forks import Forked, can_fork
from support.redis_users import WORKER, user_url
from support.relay import Relay

START_S = 60.0
"""For a process that lives: five that import everything at once on a busy core need 20 s."""


class Process:
    """One child process whose output goes to a file that a failing test can show."""

    def __init__(self, words: list[str], env: dict[str, str], log: Path) -> None:
        self.log = log
        self.popen = started(words, env, log)

    def send(self, signal_number: signal.Signals) -> None:
        self.popen.send_signal(signal_number)

    def wait(self, timeout_s: float = 20) -> int:
        return self.popen.wait(timeout_s)

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def end(self) -> None:
        """End it at once: what a test wants of an orderly end, it has seen by then."""
        self.popen.kill()
        self.wait()


def started(words: list[str], env: dict[str, str], log: Path) -> subprocess.Popen[bytes] | Forked:
    """This program with our environment and more; what it prints is added to `log`."""
    with log.open("ab") as out:
        if can_fork(words, env):
            return Forked(words, {**os.environ, **env}, log)
        return subprocess.Popen(
            words, env={**os.environ, **env}, stdout=out, stderr=subprocess.STDOUT
        )


class WorkerProcess(Process):
    """`python -m workers` on one backend."""

    def __init__(self, redis_url: str, folder: Path, backend: str = "scripted", **env: str) -> None:
        self.name = f"{backend}-{uuid4().hex[:8]}"
        super().__init__(
            [sys.executable, "-m", "workers"],
            {
                "FLEET_REDIS_URL": user_url(redis_url, WORKER),
                "FLEET_WORKER_BACKEND": backend,
                "FLEET_WORKER_NAME": self.name,
                "FLEET_DRAIN_S": "0",
                **env,
            },
            folder / f"{self.name}.log",
        )

    async def ready(self, relay: Relay) -> None:
        """Wait until the worker is on the roster with a checked backend.

        A worker that has ended fails the test at once, one that hangs after START_S; both show
        its log.
        """
        try:
            async with asyncio.timeout(START_S):
                while not any(
                    w.name == self.name and w.backends[0].error != "not checked yet"
                    for w in await relay.roster.workers()
                ):
                    assert self.popen.poll() is None, self.text()
                    await asyncio.sleep(0.05)
        except TimeoutError as error:
            raise AssertionError(f"not ready after {START_S} s: {self.text()}") from error


@contextmanager
def worker(
    redis_url: str, folder: Path, backend: str = "scripted", **env: str
) -> Iterator[WorkerProcess]:
    process = WorkerProcess(redis_url, folder, backend, **env)
    try:
        yield process
    finally:
        process.end()


async def until_logged(process: Process, words: str, timeout_s: float = 10.0) -> None:
    """Wait until a process has logged something."""
    async with asyncio.timeout(timeout_s):
        while words not in process.text():
            await asyncio.sleep(0.02)
