"""Shims as processes of a test, which may be killed."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from support.processes import START_S, Process
from support.redis_server import free_port
from support.redis_users import SHIM, user_url


class ShimProcess(Process):
    """`python -m api_shim` on a port of its own."""

    def __init__(self, redis_url: str, folder: Path, **env: str) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        super().__init__(
            [sys.executable, "-m", "api_shim", "--port", str(port)],
            {
                "FLEET_REDIS_URL": user_url(redis_url, SHIM),
                "FLEET_DATA_DIR": str(folder / "data"),
                **env,
            },
            folder / f"shim-{port}.log",
        )
        self._wait_until_it_answers()

    def _wait_until_it_answers(self) -> None:
        give_up_at = time.monotonic() + START_S
        while self.popen.poll() is None and time.monotonic() < give_up_at:
            try:
                assert httpx.get(f"{self.url}/healthz", timeout=START_S).status_code == 200
            except httpx.ConnectError:
                time.sleep(0.05)
            else:
                return
        raise AssertionError(f"the shim does not answer: {self.text()}")

    def kill(self) -> None:
        """As a crashed machine does, without a word."""
        self.popen.kill()
        self.wait()


@contextmanager
def shim(redis_url: str, folder: Path, **env: str) -> Iterator[ShimProcess]:
    process = ShimProcess(redis_url, folder, **env)
    try:
        yield process
    finally:
        process.end()
